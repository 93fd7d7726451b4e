"""Limits of this process: memory, file size, threads and open files; and errors that name them.

`ulimit`, a batch system or a container sets them. Native code that meets one often aborts without a
word, so memory is compared before it is taken.
"""

import errno
import os
import re
import resource
from collections.abc import Mapping
from pathlib import Path

__all__ = ["available_bytes", "explain_limit"]

THREAD_BYTES = 48 * 2**20  # of address space: stack and heap; measured with sentencepiece 0.2.3
FIXES = {
    errno.EFBIG: ("RLIMIT_FSIZE", "the file would exceed the limit of file sizes", "ulimit -f"),
    errno.EMFILE: ("RLIMIT_NOFILE", "too many open files", "ulimit -n"),
    errno.EAGAIN: ("RLIMIT_NPROC", "no further thread or process can be started", "ulimit -u"),
    errno.ENOMEM: ("RLIMIT_AS", "out of memory", "ulimit -v"),
}
TEXTS = {  # of errors without a number: Python's threads, torch, the dynamic loader
    r"can't start new thread|Thread creation failed": errno.EAGAIN,
    r"can't allocate memory|failed to map segment|cannot allocate memory|bad_alloc": errno.ENOMEM,
    r"Too many open files": errno.EMFILE,
}


def available_bytes(environment: Mapping[str, str], threads: int = 0) -> tuple[int | None, str]:
    """Return the memory that this process may still take, and what limits it.

    The smallest of: free memory of the machine, the memory of the Slurm job, of the control group,
    and `ulimit -v` less the address space of `threads` new threads. None where Linux reports
    nothing.
    """
    found = {
        "free memory": _of_file("/proc/meminfo", "MemAvailable"),
        "SLURM_MEM_PER_NODE": _of_job(environment),
        "the control group": _of_group(),
        "ulimit -v": _of_address_space(threads),
    }
    known = {name: size for name, size in found.items() if size is not None}
    name = min(known, key=lambda name: known[name], default="")
    return (max(0, known[name]), name) if name else (None, "")


def _of_file(path: str, field: str) -> int | None:
    """Return a field in KiB of a file of /proc, as bytes."""
    try:
        text = Path(path).read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(rf"^{field}:\s*(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _of_job(environment: Mapping[str, str]) -> int | None:
    mib = environment.get("SLURM_MEM_PER_NODE", "")  # 0: the whole node
    return int(mib) * 2**20 if mib.isdigit() and int(mib) > 0 else None


def _of_group() -> int | None:
    """Return what is left below `memory.max` of the control group (version 2)."""
    try:
        name = Path("/proc/self/cgroup").read_text(encoding="ascii").strip().rpartition("::")[2]
        folder = Path("/sys/fs/cgroup", name.lstrip("/"))
        most = int((folder / "memory.max").read_text(encoding="ascii"))
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        stat = (folder / "memory.stat").read_text(encoding="ascii")
    except (OSError, ValueError):  # no such group, or `max`
        return None
    cached = re.search(r"^inactive_file (\d+)", stat, re.MULTILINE)  # given back when needed
    return most - used + (int(cached[1]) if cached else 0)


def _of_address_space(threads: int) -> int | None:
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = _of_file("/proc/self/status", "VmSize")
    if most == resource.RLIM_INFINITY or used is None:
        return None
    return most - used - threads * THREAD_BYTES


def explain_limit(error: BaseException) -> str | None:
    """Return one line on the limit that an error met, with its value; None for other errors."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError):
        number = errno.ENOMEM
    if number is None and isinstance(error, RuntimeError | ImportError):
        number = next((n for text, n in TEXTS.items() if re.search(text, str(error))), None)
    if number not in FIXES:
        return None
    name, rule, command = FIXES[number]
    most = resource.getrlimit(getattr(resource, name))[0]
    limit = f"{command}: {_limit(name, most)}"
    if number == errno.ENOMEM:
        left, cause = available_bytes(os.environ)
        limit += "" if left is None else f"; {left / 2**30:.1f} GiB left by {cause}"
    where = (error.filename or "write") if isinstance(error, OSError) else type(error).__name__
    return f"{where}: {rule} ({limit}); raise the limit, or use less"


def _limit(name: str, value: int) -> str:
    if value == resource.RLIM_INFINITY:
        return "unlimited"
    return f"{value // 1024} KiB" if name in ("RLIMIT_FSIZE", "RLIMIT_AS") else str(value)
