"""Refuse to restart interrupted stages whose settings changed, before anything is computed.

A finished stage reruns when its settings change, as requested. An interrupted one is different: it
may hold weeks of work, and a forgotten override in the command of a restarted job would silently
train it from scratch. So this is an error that reports the difference, unless
`checkpoint.changed=restart` is set. Its checkpoints are then moved aside, not overwritten.

The same applies to a stage that lacks a checkpoint from which a later stage branches
(`stages.NAME.from=STAGE@STEP`): only retraining would create that checkpoint.
"""

from collections.abc import Sequence
from pathlib import Path

from hpc_llm.distributed import say
from hpc_llm.errors import UserError
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.pipeline.table import point_of
from hpc_llm.rundir import RunFolder
from hpc_llm.training.checkpoints.branches import missing_branches, saved_steps
from hpc_llm.training.checkpoints.checkpoint import Checkpoint, Expected
from hpc_llm.training.checkpoints.folder import checkpoints, step_and_attempt
from hpc_llm.training.checkpoints.marker import BadCheckpoint

__all__ = ["is_begun", "move_changed_aside", "refuse_changed"]


def refuse_changed(folder: RunFolder, stages: Sequence[Stage]) -> None:
    """Raise `UserError` if one of `stages` was interrupted with other settings, or lacks a
    checkpoint from which another one branches."""
    for stage in stages:
        if error := _problem(folder, stage, stages):
            raise error


def is_begun(folder: RunFolder, stage: Stage) -> bool:
    """Return whether `stage` was interrupted with the current settings and will resume."""
    newest = _newest(folder.path / stage.name / "checkpoints") if stage.trains else None
    return newest is not None and newest.state.fingerprint == stage.fingerprint


def move_changed_aside(folder: RunFolder, stage: Stage) -> None:
    """Move checkpoints from which `stage` cannot resume to superseded/."""
    problem = _problem(folder, stage)
    if problem and (moved := folder.supersede(f"{stage.name}/checkpoints")):
        say(f"{problem}; moved to {moved}")


def _problem(folder: RunFolder, stage: Stage, others: Sequence[Stage] = ()) -> UserError | None:
    """Return the error if a stage can neither resume nor start; None if it can.

    `others` are searched for the stage that branches from a missing checkpoint.
    """
    if not stage.trains:
        return None
    newest = _newest(folder.path / stage.name / "checkpoints")
    record = folder.finished(stage.name)
    finished = None if record is None else record["fingerprint"]
    if newest is None:
        return _missing_branch(folder, stage, others) if finished == stage.fingerprint else None
    if finished is not None and finished == newest.state.fingerprint != stage.fingerprint:
        return None  # it was finished, and is moved aside as a whole when it reruns
    expected = Expected(
        stage=point_of(stage.name), fingerprint=stage.fingerprint, settings=stage.settings
    )
    return newest.mismatch(expected) or _missing_branch(folder, stage, others)


def _missing_branch(folder: RunFolder, stage: Stage, others: Sequence[Stage]) -> UserError | None:
    """Return the error for a missing branch checkpoint at a step that training has passed.

    None if nothing is missing, or if training can resume from an earlier checkpoint.
    """
    place = folder.path / stage.name
    missing = missing_branches(place, _branch_steps(stage))
    left = [step_and_attempt(path)[0] for path in checkpoints(place / "checkpoints")]
    if not missing or (left and min(left) <= missing[0]):
        return None
    point, saved = point_of(stage.name), ", ".join(map(str, saved_steps(place))) or "none"
    branch = f"{point}@{missing[0]}"
    keys = (f"stages.{point_of(other.name)}.from" for other in others)
    settings = {key: other.settings.get(key) for key, other in zip(keys, others, strict=True)}
    return UserError(
        next((key for key, value in settings.items() if value == branch), stage.name),
        branch,
        f"{stage.name} was trained past that step without keeping its checkpoint (available: "
        f"{saved})",
        f"branch from one of these or from its end (from={point}), or train {point} from scratch "
        "with checkpoint.changed=restart",
    )


def _branch_steps(stage: Stage) -> list[int]:
    """Return the steps whose checkpoints are among the outputs of a stage, ascending."""
    folders = (Path(output).parent for output in stage.outputs)
    steps = (step_and_attempt(folder)[0] for folder in folders)
    return [step for step in steps if step >= 0]


def _newest(folder: Path) -> Checkpoint | None:
    for path in checkpoints(folder):
        try:
            return Checkpoint.read(path)
        except BadCheckpoint:
            continue
    return None
