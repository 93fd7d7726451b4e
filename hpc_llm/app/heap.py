"""Tune glibc's malloc for training on a CPU: by default a third of the heap is fragmented.

torch requests aligned blocks. glibc allocates a larger block and trims its ends, and the caches for
small blocks keep the trimmed parts (malloc/malloc.c: _int_memalign, tcache, fastbins). The hole of
a freed tensor then cannot coalesce with them, and no tensor of the same size fits into it again.
Without those caches it does. By default glibc maps large tensors from the kernel and unmaps them
each time, and the kernel zeroes their pages one by one: here they stay in the heap.

glibc reads these settings when a process starts, so this process re-executes itself with the same
command.
"""

import os
import shutil
import sys
from pathlib import Path

from hpc_llm.distributed import child_environment

__all__ = ["TUNABLES", "join_freed_blocks"]

TUNABLES = ":".join(
    (
        "glibc.malloc.mxfast=0",
        "glibc.malloc.tcache_count=0",
        f"glibc.malloc.mmap_threshold={2**32}",
        f"glibc.malloc.trim_threshold={2**30}",  # free bytes kept at the top of the heap
    )
)
VARIABLE = "GLIBC_TUNABLES"  # gnu.org/software/libc/manual/html_node/Tunables.html
OURS = (("hpc-llm",), ("hpc_llm", "app", "__main__.py"))  # as a script, and as a module


def join_freed_blocks() -> None:
    """Re-execute this process with malloc settings that coalesce freed blocks; ranks inherit them.

    Does nothing if the variable is set, if there is a GPU (tensors are in its memory), or if the
    caller is another program.
    """
    program = Path(sys.argv[0]).parts
    called = any(program[-len(ours) :] == ours for ours in OURS)
    if not called or VARIABLE in os.environ or shutil.which("nvidia-smi"):
        return
    if not sys.platform.startswith("linux"):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    environment = {**child_environment(os.environ), VARIABLE: TUNABLES}
    os.execve(sys.executable, sys.orig_argv, environment)
