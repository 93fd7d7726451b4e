"""The heap of a process that trains on a CPU: with glibc as it is, a third of it is holes.

torch asks for aligned blocks. glibc takes a larger one and cuts off the ends, and the caches for
small blocks keep those pieces (malloc/malloc.c: _int_memalign, tcache, fastbins): the hole that a
freed tensor leaves then joins with neither, and no tensor of the same size fits into it again.
Without those caches it does. Large tensors glibc takes from the kernel and gives back each time,
and the kernel hands out their pages one by one, cleared: here they stay, and come from the heap.

glibc reads such settings when a process starts, so this one executes itself again: same process,
the same command.
"""

import os
import shutil
import sys
from pathlib import Path

__all__ = ["TUNABLES", "join_freed_blocks"]

TUNABLES = ":".join(
    (
        "glibc.malloc.mxfast=0",
        "glibc.malloc.tcache_count=0",
        f"glibc.malloc.mmap_threshold={2**32}",
        f"glibc.malloc.trim_threshold={2**30}",  # what may be left free at the heap's end
    )
)
VARIABLE = "GLIBC_TUNABLES"  # gnu.org/software/libc/manual/html_node/Tunables.html
OURS = (("hpc-llm",), ("hpc_llm", "app", "__main__.py"))  # as a script, and as a module


def join_freed_blocks() -> None:
    """Execute this process again with a heap that joins freed blocks; its ranks inherit it.

    Not where the variable is set, not beside a GPU, whose tensors lie elsewhere, and not where
    another program has called.
    """
    program = Path(sys.argv[0]).parts
    called = any(program[-len(ours) :] == ours for ours in OURS)
    if not called or VARIABLE in os.environ or shutil.which("nvidia-smi"):
        return
    if not sys.platform.startswith("linux"):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, sys.orig_argv, {**os.environ, VARIABLE: TUNABLES})
