"""Open files for writing without following links, and names for temporary files.

A run folder may lie where others can write (a group's project folder). A symbolic link planted
there must not lead a write to another file of this user.
"""

import errno
import os
import secrets
import shutil
import stat
from pathlib import Path

from hpc_llm.errors import UserError

__all__ = ["open_regular", "refuse_link", "temporary_beside"]


def open_regular(path: Path, flags: int, mode: int = 0o644) -> int:
    """Open a regular file with `flags` of `os.open` and return its descriptor.

    Raises `UserError` for a symbolic link, and for anything else that is no regular file (a pipe, a
    device, a folder).
    """
    try:
        # a pipe without a reader would block the process
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _refusal(path) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _refusal(path)
    return handle


def refuse_link(path: Path) -> None:
    """Raise `UserError` if `path` is a symbolic link."""
    if path.is_symlink():
        raise _refusal(path)


def _refusal(path: Path) -> UserError:
    kind = "is a symbolic link" if path.is_symlink() else "is no regular file"
    rule = f"{kind}, and hpc-llm writes to none"
    return UserError(str(path), None, rule, "remove it after checking who put it there")


def temporary_beside(path: Path) -> Path:
    """Return an unused, unpredictable name beside `path` for what will replace it.

    It holds the id of this process. Temporary files and folders of dead processes of this machine
    for the same `path` are removed.
    """
    for left in path.parent.glob(f".{_escaped(path.name)}.*-*.tmp"):
        number = left.name.removesuffix(".tmp").rpartition(".")[2].partition("-")[0]
        if number.isdigit() and not Path("/proc", number).exists():
            _remove(left)
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _escaped(name: str) -> str:
    """Return `name` for use in a glob pattern: its wildcards stand for themselves."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
