"""Checkpoints on disk: contents, atomic commit, pruning. No torch here.

`checkpoints/step-00000120/` holds the states in one of two layouts (`whole`, `sharded`) and
`state.json`: the counters, the data fingerprint, the settings it was made with, and size and
SHA-256 of every other file. `state.json` is the completion marker: it is written last into a
temporary folder, which is then renamed atomically. A checkpoint never overwrites another one, and
an unreadable one is skipped in favour of the one before it.

Random states are not stored: every step seeds its generators from (seed, index of the batch).
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

FORMAT = 2  # increment when the contents of a checkpoint change
MARKER = "state.json"
NAME = re.compile(r"step-(\d{8,})(?:-(\d+))?")


class BadCheckpoint(ValueError):
    """An incomplete or corrupt checkpoint; the message describes the problem."""


@dataclass(kw_only=True)
class CheckpointState:
    """Contents of `state.json`."""

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
    """Settings on which the weights depend, as `stages.lora.rank`: these must not change."""
    made_with: dict[str, Any]
    """Ranks, ZeRO stage and similar values: these may change."""
    optimizer: dict[str, Any]
    """Optimizer state other than tensors: its step, and the loss scale of fp16."""
    division: str = ""
    """Sharded layout only: fingerprint of DeepSpeed's partitioning of the states."""
    names: dict[str, str] = field(default_factory=dict)
    """Sharded layout only: DeepSpeed's parameter names."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Bytes and SHA-256 of every file, by path relative to the folder."""
    format: int = FORMAT


def step_and_attempt(path: Path) -> tuple[int, int]:
    """Return (step, attempt) of a checkpoint folder; attempts at a step count from 1.

    (-1, 0) if the name is not that of a checkpoint.
    """
    match = NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2] or 1)) if match else (-1, 0)


def numbered(step: int, attempt: int) -> str:
    """Return the name of a checkpoint folder."""
    return f"step-{step:08d}" + (f"-{attempt}" if attempt > 1 else "")


def checkpoints(folder: Path, last: int | None = None) -> list[Path]:
    """Return the checkpoints in `folder` up to step `last`, newest first."""
    found = sorted(((step_and_attempt(path), path) for path in folder.glob("step-*")), reverse=True)
    return [path for (step, _), path in found if step >= 0 and (last is None or step <= last)]


def temporary_folder(folder: Path, step: int, start: int = 0) -> Path:
    """Return the folder in which a checkpoint of `step` is written before the final rename.

    Each start of the run has its own (`start` is its number), so files from stale ranks of an
    earlier start never end up in a checkpoint of a later one.
    """
    return folder / f".step-{step:08d}.{start}.tmp"


def tidy(folder: Path) -> list[str]:
    """Remove temporary folders of killed writers; return their names."""
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
    """Write the completion marker, rename the folder, and prune older checkpoints.

    All other files must be in `temporary`, synced. Checkpoints of steps in `branches` are kept.
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
            half = old.rename(old.with_name(f".{old.name}.old.tmp"))  # no longer a checkpoint
            shutil.rmtree(half, ignore_errors=True)
    return path


def _free_name(folder: Path, step: int) -> str:
    """Return an unused name for a checkpoint of `step`: a second one does not replace the first."""
    places = [step_and_attempt(path) for path in checkpoints(folder, step)]
    return numbered(step, 1 + max((attempt for at, attempt in places if at == step), default=0))


def _best(folder: Path) -> dict[str, Any]:
    try:
        found = read_json(folder / "best")
    except (OSError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _mark_best(folder: Path, path: Path, loss: float | None) -> None:
    """Record the checkpoint with the lowest training loss in the file `best`."""
    best = _best(folder)
    known = (folder / str(best.get("checkpoint")) / MARKER).exists()
    if loss is not None and (not known or loss < best["loss"]):
        write_json(folder / "best", {"checkpoint": path.name, "loss": loss})


def set_aside(path: Path) -> Path:
    """Rename an unusable checkpoint to broken-*; only the latest of these is kept."""
    for old in path.parent.glob("broken-*"):
        shutil.rmtree(old, ignore_errors=True)
    return path.rename(path.with_name(f"broken-{path.name}"))


def drop_all_but_best(folder: Path) -> None:
    """Remove the checkpoints of a finished stage, except the best one if `best` names it."""
    best = _best(folder).get("checkpoint")
    if best is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.is_dir() and path.name != best:
            shutil.rmtree(path, ignore_errors=True)
