"""Fencing: once a later start has taken over a run folder, earlier ones cannot write to it.

If a node loses its network, Slurm marks it down and restarts the job elsewhere; but its processes
may still run, and reach the shared file system again minutes later. A lock does not stop them:
parallel file systems drop the locks of an unreachable node, or have no locks. So each start appends
a line to `starts.jsonl` (see `starts`), and before each write to the folder rank 0 checks that the
newest line is its own: one `open` and one `fstat` if nothing was appended (NFS asks its server at
every `open`), about 10 microseconds on a local disk.

A process may be suspended between the check and the write; the same holds for a lock.
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
    """The run folder held by this process, and the line in its log that proves it."""

    number: int
    """Number of the start, from 1; 0 outside of a run."""
    log: Path | None = None
    """None: another rank checks the fence."""
    folder: str = ""
    token: str = ""
    size: int = -1
    """Bytes of the log when this start was last seen to be the newest."""


_held = [_Held(0)]  # at most one: a process works in one run folder at a time


def hold(number: int, log: Path | None = None, token: str = "") -> None:
    """Make this process part of start `number`; with `log`, check its `token` before writes."""
    folder = "" if log is None else os.path.abspath(log.parent) + os.sep
    _held[0] = _Held(number, log, folder, token)


def release() -> None:
    """Release the folder held."""
    _held[0] = _Held(0)


def start_number() -> int:
    """Return the number of the start that this process belongs to; 0 outside of a run."""
    return _held[0].number


def check_fence(path: Path) -> None:
    """Raise `Superseded` if `path` is in the folder held and a later start has taken it over."""
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
    by = "superseded, and starts.jsonl has no start"
    if newest:
        by = f"superseded by start {newest['start']} (job {newest['job']} on {newest['hosts']})"
    raise Superseded(
        f"{held.folder}: start {held.number}: {by}; nothing was written. Expected if this node was "
        "lost"
    )


def _newest_start(data: bytes) -> dict[str, Any]:
    """Return the last line with event `start`; empty if there is none."""
    for raw in reversed(data.splitlines()):
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict) and line.get("event") == "start":
            return line
    return {}
