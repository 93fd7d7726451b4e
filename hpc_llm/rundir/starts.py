"""`starts.jsonl`: every start of a run, where it began, and how it ended.

One line when a process takes the folder (`start`: its number, one above the last; job, restart,
hosts; the stage and step from which it resumes), one for a stop request (`asked`), one when the
process ends by itself (`end`). A start without `end` was killed. The newest `start` line is also
the fence (see `fence`): only its owner may write.
"""

import socket
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpc_llm.errors import Superseded, UserError
from hpc_llm.rundir import fence
from hpc_llm.rundir.atomic import append_line, read_jsonl

__all__ = ["Start", "join_start", "note_start", "read_starts", "take_folder"]


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start of a run."""

    number: int = 0
    job: str | None = None
    """The scheduler's job id."""
    restart: int = 0
    """Number of times Slurm had requeued the job."""
    hosts: str = ""
    """Nodes of the job, as node[01-04]."""
    stage: str = ""
    """The first unfinished stage; empty: none."""
    step: int = 0
    """Step of its newest checkpoint."""
    settings: str = ""
    """Fingerprint of the settings, the ranks and the program."""
    asked: str | None = None
    """The signal that requested a stop."""
    code: int | None = None
    """Exit code of rank 0; None: killed, or still running."""
    why: str = ""
    """Rank 0's error message."""
    refused: bool = False
    """It ended at once because of a crash loop."""

    @property
    def place(self) -> tuple[str, int, str]:
        """Stage, step and settings: equal for all starts in a crash loop."""
        return self.stage, self.step, self.settings


def take_folder(log: Path, start: Start) -> int:
    """Take over the folder of `log` for this process; return the number of the start.

    Sets `number`, and `hosts` if empty. Other processes that write there then end with
    `Superseded`. If two processes take it at once, the one with the last line has it.
    """
    number = 1 + max((earlier.number for earlier in read_starts(log)), default=0)
    token = uuid.uuid4().hex
    line = {
        "event": "start",
        "start": number,
        "token": token,
        "job": start.job,
        "restart": start.restart,
        "hosts": start.hosts or socket.gethostname(),
        "stage": start.stage,
        "step": start.step,
        "settings": start.settings,
    }
    fence.release()
    append_line(log, line | _now())
    fence.hold(number, log, token)
    return number


def join_start(number: int) -> None:
    """Join start `number`, whose folder another rank has taken."""
    if fence.start_number() != number:
        fence.hold(number)


def note_start(log: Path, event: str, **facts: Any) -> None:
    """Append an event of this start, unless a later start has the folder.

    Safe in a signal handler: a single write of one line.
    """
    number = fence.start_number()
    with suppress(Superseded, UserError, OSError):
        append_line(log, {"event": event, "start": number, **facts, **_now()})


def read_starts(log: Path) -> list[Start]:
    """Return the starts of a run folder in order, each with its stop request and end."""
    found: dict[int, Start] = {}
    for line in read_jsonl(log):
        number = line.get("start")
        if not isinstance(number, int):
            continue
        if line.get("event") == "start":
            found[number] = Start(number=number, **_known(line))
        elif line.get("event") == "asked" and number in found:
            found[number] = replace(found[number], asked=str(line.get("reason")))
        elif line.get("event") == "end" and number in found:
            found[number] = replace(found[number], **_known(line))
    return [found[number] for number in sorted(found)]


def _known(line: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(Start)} - {"number"}
    return {name: value for name, value in line.items() if name in names}


def _now() -> dict[str, str]:
    return {"time": datetime.now(UTC).isoformat(timespec="seconds")}
