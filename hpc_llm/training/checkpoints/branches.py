"""Checkpoints from which later stages branch (`stages.NAME.from=STAGE@STEP`). No torch here.

While STAGE trains, such a checkpoint is stored with the others and is not pruned. When STAGE is
done, it is kept as `train/STAGE/branches/step-00000120/`: part of the stage's result, and shared
with other runs like the rest of it.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from hpc_llm.rundir import replaced_folder
from hpc_llm.training.checkpoints.folder import checkpoints, numbered, step_and_attempt
from hpc_llm.training.checkpoints.marker import MARKER

__all__ = ["branch_marker", "branch_path", "keep_branches", "missing_branches", "saved_steps"]

FOLDER = "branches"


def branch_path(stage_folder: Path, step: int) -> Path:
    """Return the path where a finished stage keeps the checkpoint of `step` for branches."""
    return stage_folder / FOLDER / numbered(step, 1)


def branch_marker(stage: str, step: int) -> str:
    """Return the completion marker of that checkpoint, relative to the run folder."""
    return str(branch_path(Path(stage), step) / MARKER)


def saved_steps(stage_folder: Path) -> list[int]:
    """Return the steps with a checkpoint, from training or kept for branches."""
    folders = (stage_folder / "checkpoints", stage_folder / FOLDER)
    return sorted({step_and_attempt(p)[0] for folder in folders for p in checkpoints(folder)})


def missing_branches(stage_folder: Path, steps: Sequence[int]) -> list[int]:
    """Return those of `steps` without a checkpoint."""
    saved = saved_steps(stage_folder)
    return [step for step in steps if step not in saved]


def keep_branches(stage_folder: Path, steps: Sequence[int]) -> None:
    """Keep the checkpoints of `steps` of a finished stage, as hard links if the disk has them.

    Files of a checkpoint are never changed in place. A step without a checkpoint is skipped; the
    stage that branches from it reports the error.
    """
    folder = stage_folder / "checkpoints"
    for step in steps:
        found = next((p for p in checkpoints(folder, step) if step_and_attempt(p)[0] == step), None)
        if found is not None:
            with replaced_folder(branch_path(stage_folder, step)) as target:
                hidden = shutil.ignore_patterns(".*")
                shutil.copytree(
                    found, target, ignore=hidden, copy_function=_link, dirs_exist_ok=True
                )


def _link(source: str, target: str) -> str:
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
    return target
