"""Checkpoints on disk: contents, atomic commit, pruning. No torch here.

`checkpoints/step-00000120/` holds the states in one of two layouts (`whole`, `sharded`) and
`state.json` (see `marker`): the counters, the data fingerprint, the settings it was made with, and
size and SHA-256 of every other file. `state.json` is the completion marker: it is written last into
a temporary folder, which is then renamed atomically. A checkpoint never overwrites another one, and
an unreadable one is skipped in favour of the one before it.

Random states are not stored: every step seeds its generators from (seed, index of the batch).
"""

import math
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.rundir import check_fence, read_json, sync_folder, write_json
from hpc_llm.rundir.checksums import sealed, unsealed
from hpc_llm.training.checkpoints.marker import (
    MARKER,
    BadCheckpoint,
    CheckpointState,
    read_state,
    write_state,
)

__all__ = [
    "checkpoints",
    "commit",
    "drop_all_but_best",
    "numbered",
    "set_aside",
    "step_and_attempt",
    "temporary_folder",
    "tidy",
]

NAME = re.compile(r"step-(\d{8,})(?:-(\d+))?")


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
    write_state(temporary, state)
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
    """Return name and loss of the best checkpoint; {} if there is none.

    They are in the file `best`; where this is damaged, the checkpoints have the losses.
    """
    file = folder / "best"
    if not file.exists():
        return {}
    with suppress(OSError, UserError):
        found = read_json(file)
        if isinstance(found, dict) and (found := unsealed(found)) and _is_best(found):
            return found
    known = []
    for path in checkpoints(folder):
        with suppress(BadCheckpoint, UserError):
            known.append((read_state(path).progress.loss, path.name))
    losses = [(loss, name) for loss, name in known if loss is not None]
    return dict(zip(("loss", "checkpoint"), min(losses), strict=True)) if losses else {}


def _is_best(found: dict[str, Any]) -> bool:
    name, loss = found.get("checkpoint"), found.get("loss")
    is_number = isinstance(loss, int | float) and math.isfinite(loss)
    return is_number and isinstance(name, str) and NAME.fullmatch(name) is not None


def _mark_best(folder: Path, path: Path, loss: float | None) -> None:
    """Record the checkpoint with the lowest training loss in the file `best`."""
    best = _best(folder)
    known = (folder / str(best.get("checkpoint")) / MARKER).exists()
    if loss is not None and (not known or loss < best["loss"]):
        write_json(folder / "best", sealed({"checkpoint": path.name, "loss": loss}))


def set_aside(path: Path) -> Path:
    """Rename an unusable checkpoint to broken-*; only the latest of these is kept."""
    for old in path.parent.glob("broken-*"):
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink()
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
