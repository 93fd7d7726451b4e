"""Compile DeepSpeed's shared-memory extension once: `python -P -m hpc_llm.training.prebuild`.

The first training on a CPU would also compile it (about half a minute); `make setup` runs this.
"""

from hpc_llm.distributed import detect_ranks
from hpc_llm.training import process_group

__all__ = ["main"]


def main() -> None:
    """Start a process group of one rank, which compiles the extension if it is missing."""
    process_group.start(detect_ranks({}), None)


if __name__ == "__main__":
    main()
