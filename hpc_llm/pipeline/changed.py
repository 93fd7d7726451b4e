"""Interrupted stages that were begun with other settings: refused before anything is spent.

A finished stage whose settings change is done again, as asked. An interrupted one is another case:
it may hold weeks of work, and a forgotten override in the command of a restarted job would begin
it anew without anyone looking. So that is refused, with what differs, unless the settings say
`checkpoint.changed=restart`. Its checkpoints are then moved aside, not overwritten.
"""

from collections.abc import Sequence
from pathlib import Path

from hpc_llm.distributed import say
from hpc_llm.errors import UserError
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.rundir import RunFolder
from hpc_llm.training.checkpoints.differences import refusal
from hpc_llm.training.checkpoints.folder import (
    BadCheckpoint,
    CheckpointState,
    checkpoints,
    read_state,
)

__all__ = ["is_begun", "move_changed_aside", "refuse_changed"]


def refuse_changed(folder: RunFolder, stages: Sequence[Stage]) -> None:
    """Raise `UserError` when one of `stages` was interrupted and begun with other settings."""
    for stage in stages:
        if problem := _problem(folder, stage):
            raise UserError(problem)


def is_begun(folder: RunFolder, stage: Stage) -> bool:
    """Tell whether `stage` was interrupted with today's settings, so that it goes on."""
    newest = _newest(folder.path / stage.name / "checkpoints") if stage.all_ranks else None
    return newest is not None and newest[1].fingerprint == stage.fingerprint


def move_changed_aside(folder: RunFolder, stage: Stage) -> None:
    """Move checkpoints that `stage` cannot go on from to superseded/."""
    problem = _problem(folder, stage)
    if problem and (moved := folder.supersede(f"{stage.name}/checkpoints")):
        say(f"{problem}; moved to {moved}")


def _problem(folder: RunFolder, stage: Stage) -> str | None:
    """Return why the newest checkpoint of a stage is none to go on from; None: it is, or none."""
    newest = _newest(folder.path / stage.name / "checkpoints") if stage.all_ranks else None
    if newest is None:
        return None
    path, state = newest
    record = folder.finished(stage.name)
    if record is not None and record["fingerprint"] == state.fingerprint:
        return None  # it was finished, and is moved aside as a whole when it is done again
    name = stage.name.rsplit("/", 1)[-1]
    return refusal(path, state, name, stage.fingerprint, stage.settings)


def _newest(folder: Path) -> tuple[Path, CheckpointState] | None:
    for path in checkpoints(folder):
        try:
            return path, read_state(path)
        except BadCheckpoint:
            continue
    return None
