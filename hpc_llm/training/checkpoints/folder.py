"""Checkpoints on the disk: what is in one, how it gets its name, which are kept. No torch here.

`checkpoints/step-00000120/` holds the states in one of two layouts (`whole`, `sharded`) and
`state.json`: the counters, the data's fingerprint, the settings it was made with, and size and
SHA-256 of every other file. `state.json` is the completion marker: it is written last into a
temporary folder, which then gets its name by one rename. A checkpoint is never written over
another one, and one that cannot be read is skipped for the one before it.

Random numbers need no place in it: every step seeds them from (seed, number of the batch).
"""

import json
import re
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpc_llm.rundir import check_fence, read_json, sync_folder, write_json
from hpc_llm.training.progress import Progress

__all__ = [
    "BadCheckpoint",
    "CheckpointState",
    "checkpoints",
    "commit",
    "drop_all_but_best",
    "numbered",
    "set_aside",
    "step_and_attempt",
    "temporary_folder",
    "tidy",
]

FORMAT = 2  # raised when what lies in a checkpoint changes
MARKER = "state.json"
NAME = re.compile(r"step-(\d{8,})(?:-(\d+))?")


class BadCheckpoint(ValueError):
    """A checkpoint that is incomplete or damaged; the message says what is wrong with it."""


@dataclass(kw_only=True)
class CheckpointState:
    """What `state.json` holds."""

    stage: str
    fingerprint: str
    """Of the stage: its settings and its inputs."""
    progress: Progress
    layout: str
    """whole | sharded."""
    data: dict[str, Any]
    """The reader: fingerprint and sequences of its text, and the next sequence."""
    parameters: dict[str, str]
    """Shapes of the trained parameters by name, as `4096 x 64`."""
    settings: dict[str, Any]
    """Settings that the weights depend on, as `stages.lora.rank`: these may not change."""
    made_with: dict[str, Any]
    """Ranks, ZeRO stage and the like: these may change."""
    optimizer: dict[str, Any]
    """Of the optimizer what is no tensor: its step, and the loss scale of fp16."""
    division: str = ""
    """Of a sharded one: fingerprint of how DeepSpeed has partitioned the states."""
    names: dict[str, str] = field(default_factory=dict)
    """Of a sharded one: DeepSpeed's names of the parameters."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Bytes and SHA-256 of every file, by its path in the folder."""
    format: int = FORMAT


def step_and_attempt(path: Path) -> tuple[int, int]:
    """Return the step of a checkpoint's folder and which one of that step it is, from 1.

    (-1, 0) for a folder of another name.
    """
    match = NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2] or 1)) if match else (-1, 0)


def numbered(step: int, attempt: int) -> str:
    """Return the name of a checkpoint's folder."""
    return f"step-{step:08d}" + (f"-{attempt}" if attempt > 1 else "")


def checkpoints(folder: Path, last: int | None = None) -> list[Path]:
    """Return the checkpoints in `folder`, newest first; with `last` none of a later step."""
    found = sorted(((step_and_attempt(path), path) for path in folder.glob("step-*")), reverse=True)
    return [path for (step, _), path in found if step >= 0 and (last is None or step <= last)]


def temporary_folder(folder: Path, step: int, start: int = 0) -> Path:
    """Return where a checkpoint of `step` is written before it has its name.

    Start number `start` of the run has its own, so that what a stale rank of an earlier start
    writes is in no checkpoint of a later one.
    """
    return folder / f".step-{step:08d}.{start}.tmp"


def tidy(folder: Path) -> list[str]:
    """Remove what killed writers left; return the names of it."""
    left = [*folder.glob(".*.tmp"), *folder.glob("step-*/.*.tmp")]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return [path.name for path in left]


def commit(
    temporary: Path,
    state: CheckpointState,
    keep: int,
    *,
    keep_best: bool,
    branches: Collection[int] = (),
) -> Path:
    """Mark a written checkpoint as complete, give it its name, and prune the older ones.

    All other files must be in `temporary`, synced. Checkpoints of the steps in `branches` stay.
    """
    write_json(temporary / MARKER, asdict(state))
    folder = temporary.parent
    check_fence(folder)
    path = temporary.rename(folder / _free_name(folder, state.progress.step))
    sync_folder(folder)
    if keep_best:
        _mark_best(folder, path, state.progress.loss)
    best = _best(folder).get("checkpoint") if keep_best else None
    for old in checkpoints(folder)[keep:]:
        if old.name != best and step_and_attempt(old)[0] not in branches:
            half = old.rename(old.with_name(f".{old.name}.old.tmp"))  # no checkpoint any more
            shutil.rmtree(half, ignore_errors=True)
    return path


def _free_name(folder: Path, step: int) -> str:
    """Return the name of a checkpoint of `step`: a second one of a step does not replace it."""
    places = [step_and_attempt(path) for path in checkpoints(folder, step)]
    return numbered(step, 1 + max((attempt for at, attempt in places if at == step), default=0))


def _best(folder: Path) -> dict[str, Any]:
    try:
        found = read_json(folder / "best")
    except (OSError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _mark_best(folder: Path, path: Path, loss: float | None) -> None:
    """Let the file `best` name the checkpoint with the lowest training loss."""
    best = _best(folder)
    known = (folder / str(best.get("checkpoint")) / MARKER).exists()
    if loss is not None and (not known or loss < best["loss"]):
        write_json(folder / "best", {"checkpoint": path.name, "loss": loss})


def set_aside(path: Path) -> Path:
    """Rename a checkpoint that cannot be used to broken-*; only the last one of these is kept."""
    for old in path.parent.glob("broken-*"):
        shutil.rmtree(old, ignore_errors=True)
    return path.rename(path.with_name(f"broken-{path.name}"))


def drop_all_but_best(folder: Path) -> None:
    """Remove the checkpoints of a finished stage; the best one stays where it is to be kept."""
    best = _best(folder).get("checkpoint")
    if best is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.is_dir() and path.name != best:
            shutil.rmtree(path, ignore_errors=True)
