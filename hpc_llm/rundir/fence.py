"""The fence: once a later start has taken a run folder over, an earlier one writes nothing there.

A node that loses its network is given up by Slurm, and the job starts again elsewhere; but its
processes may still run, and see the shared file system again minutes later. A lock does not hold
them off: parallel file systems drop the locks of a node they cannot reach, or have none. So each
start adds a line to `starts.jsonl` (see `starts`), and before rank 0 writes anything below the
folder it looks whether the newest line is still its own: one `open` and one `fstat` where nothing
was added (NFS asks its server at every `open`), about 10 microseconds on a local disk.

Between the look and the write there is a moment in which a process may be frozen; a lock would
have it too.
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_llm.errors import Superseded

__all__ = ["check_fence", "hold", "release", "start_number"]


@dataclass
class _Held:
    """The folder that this process works in, and the line by which it holds it."""

    number: int
    """Of the start, from 1; 0 outside of a run."""
    log: Path | None = None
    """None: another rank looks."""
    folder: str = ""
    token: str = ""
    size: int = -1
    """Bytes of the log when its newest start was last seen to be this one."""


_held = [_Held(0)]  # one at most: a process works in one run folder at a time


def hold(number: int, log: Path | None = None, token: str = "") -> None:
    """Take start `number` for this process's; with `log`, look for its `token` before a write."""
    folder = "" if log is None else os.path.abspath(log.parent) + os.sep
    _held[0] = _Held(number, log, folder, token)


def release() -> None:
    """Hold no folder any more."""
    _held[0] = _Held(0)


def start_number() -> int:
    """Return the number of the start that this process belongs to; 0 outside of a run."""
    return _held[0].number


def check_fence(path: Path) -> None:
    """Raise `Superseded` if `path` is in the folder held, and a later start has taken that."""
    held = _held[0]
    if held.log is None or not os.path.abspath(path).startswith(held.folder):
        return
    newest: dict[str, Any] = {}
    with suppress(FileNotFoundError), held.log.open("rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        if size == held.size:
            return
        newest = _newest_start(handle.read())
        if newest.get("token") == held.token:
            held.size = size
            return
    by = f"start {newest['start']} (job {newest['job']} on {newest['hosts']})" if newest else "none"
    raise Superseded(
        f"{held.folder}: start {held.number}, which this process belongs to, is not its last any "
        f"more, {by} is; nothing was written. Is it left over from a lost node? Then all is well"
    )


def _newest_start(data: bytes) -> dict[str, Any]:
    """Return the last line of a start; empty if there is none."""
    for raw in reversed(data.splitlines()):
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict) and line.get("event") == "start":
            return line
    return {}
