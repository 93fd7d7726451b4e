"""`events.jsonl`: every metric of a run with all its axes, one JSON line for each event.

W&B, the console and the report are views of this file, which is append-only. A stage that resumes
from a checkpoint appends a `resume` event, and the reader drops what was logged after that
checkpoint: those steps are repeated.
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc_llm.rundir import append_line, read_jsonl

__all__ = ["AXES", "EVENTS", "EventLog", "plain", "read_events"]

AXES = ("step", "tokens", "bytes", "flops", "pf_days", "gpu_hours", "wall_seconds", "money")
"""Axes of a metric; each counts from the start of its stage."""
EVENTS = ("train", "evaluate", "stage", "cost", "correct", "guard", "resume")


def plain(value: Any) -> Any:
    """Return `value` as JSON: numpy scalars as Python numbers, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "item"):
        return plain(value.item())
    raise TypeError(f"an event cannot contain a {type(value).__name__}; use numbers and strings")


class EventLog:
    """The writer of `events.jsonl`; only rank 0 has one."""

    def __init__(self, path: Path) -> None:
        """Append to `path`, which may have events already; its folder must exist."""
        self.path = path

    def append(
        self,
        event: str,
        *,
        stage: str,
        axes: Mapping[str, Any],
        metrics: Mapping[str, Any],
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Append one event, synced to the disk.

        `event` is one of `EVENTS`, `axes` some of `AXES` (each cumulative within `stage`), and
        `metrics` maps names like `train/loss` to numbers. `details` are for readers of the file:
        they are copied into the event, and shown in no view.
        """
        if event not in EVENTS:
            raise ValueError(f"event={event}: unknown; choose one of {', '.join(EVENTS)}")
        if unknown := set(axes) - set(AXES):
            raise ValueError(f"axes {sorted(unknown)}: unknown; choose from {', '.join(AXES)}")
        line = {"event": event, "stage": stage, **axes, "time": time.time(), "metrics": metrics}
        line |= details or {}
        append_line(self.path, plain(line))

    def resume(self, stage: str, step: int) -> None:
        """Log that `stage` resumes after `step`: its events after that step are void.

        `step=0` restarts the stage from scratch.
        """
        self.append("resume", stage=stage, axes={"step": step}, metrics={})


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the valid history, in the order in which it was logged.

    No step occurs twice: a `resume` event voids the earlier train and evaluate events of its stage
    with a larger step, and a train event whose step is not after the last one (a stage restarted
    without a checkpoint) replaces those from that step on. Incomplete lines and the `resume` events
    are skipped; without a file the history is empty.
    """
    history: list[dict[str, Any]] = []
    farthest: dict[str, int] = {}
    for line in read_jsonl(path):
        event, stage, step = line.get("event"), line.get("stage", ""), line.get("step") or 0
        if event == "resume":
            history = [old for old in history if not _is_beyond(old, stage, step)]
        elif event in EVENTS:
            if event == "train" and step <= farthest.get(stage, -1):
                history = [old for old in history if not _is_beyond(old, stage, step - 1)]
            history.append(line)
        if event in ("train", "resume"):
            farthest[stage] = step
    return history


def _is_beyond(event: dict[str, Any], stage: str, step: int) -> bool:
    measured = event["event"] in ("train", "evaluate") and event.get("stage") == stage
    return measured and (event.get("step") or 0) > step
