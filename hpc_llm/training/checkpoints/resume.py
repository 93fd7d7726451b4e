"""Resume: load the newest complete checkpoint of a stage, verified before anything is computed.

All ranks load the same one: rank 0 chooses, each rank verifies the checksums of a share of the
files, and if one fails, the checkpoint is set aside and the one before it is tried. A checkpoint of
another stage, model, text or of other settings is an error that reports the difference. A stage
that branches from another one (`from=STAGE@STEP`) first loads that checkpoint, and later its own.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hpc_llm.distributed import say
from hpc_llm.errors import UserError
from hpc_llm.surgery.loading import full_shape
from hpc_llm.training import process_group
from hpc_llm.training.checkpoints.branches import missing_branches
from hpc_llm.training.checkpoints.checkpoint import Checkpoint, Expected
from hpc_llm.training.checkpoints.differences import other_parameters
from hpc_llm.training.checkpoints.folder import checkpoints, set_aside, step_and_attempt, tidy
from hpc_llm.training.checkpoints.marker import BadCheckpoint
from hpc_llm.training.checkpoints.sharded import division, load_sharded
from hpc_llm.training.checkpoints.states import restore_states
from hpc_llm.training.checkpoints.universal import (
    UniversalTensors,
    convert,
    converted_files,
    drop_converted,
)
from hpc_llm.training.checkpoints.whole import WholeTensors
from hpc_llm.training.progress import Progress
from hpc_llm.training.spec import Branch, StageSpec

__all__ = [
    "data_of",
    "division_of",
    "load_latest",
    "made_with",
    "read_branch",
    "restore",
    "shapes",
]

log = logging.getLogger(__name__)


def load_latest(
    spec: StageSpec, *, last: int | None = None, tidying: bool = True
) -> Checkpoint | None:
    """Return the newest complete checkpoint of the stage, up to step `last` (collective).

    If there is none, return the checkpoint from which the stage branches, with progress 0, or None
    if it does not branch. With `tidying`, corrupt checkpoints are set aside and reported, and
    temporary folders of killed writers are removed. Raises `UserError` for a checkpoint that is not
    of this stage.
    """
    if spec.ranks.is_first and tidying:
        _tidy(spec)
    if tidying and spec.branch_steps:
        last = process_group.on_first_rank(lambda: _before_missing(spec))
    skipped: set[Path] = set()
    while name := process_group.on_first_rank(lambda: _newest(spec, last, skipped, tidying)):
        checkpoint = Checkpoint.read(spec.folder / name)
        if (problem := _damage(spec, checkpoint)) is None:
            return checkpoint
        if spec.ranks.is_first:
            _skip(checkpoint.path, problem, skipped, tidying)
    return _start_of_branch(spec)


def _tidy(spec: StageSpec) -> None:
    """Remove what killed writers left behind, and move a file in place of the folder aside."""
    if spec.folder.exists() and not spec.folder.is_dir():
        say(f"{spec.folder}: is not a folder; kept as {set_aside(spec.folder).name}")
    for name in tidy(spec.folder):
        say(f"{spec.name}: removed the incomplete checkpoint {name}")


def _before_missing(spec: StageSpec) -> int | None:
    """Return the first step from which a later stage branches and that is not saved yet.

    Training resumes from a checkpoint before it, and then reaches it with the same bits.
    """
    missing = missing_branches(spec.folder.parent, spec.branch_steps)
    return min(missing, default=None)


def _newest(spec: StageSpec, last: int | None, skipped: set[Path], tidying: bool) -> str:
    """Return the name of the newest checkpoint with a valid marker; "" if there is none."""
    expected = _expected(spec)
    for path in checkpoints(spec.folder, last):
        if path in skipped:
            continue
        try:
            checkpoint = Checkpoint.read(path)
        except BadCheckpoint as error:
            _skip(path, str(error), skipped, tidying)
            continue
        if mismatch := checkpoint.mismatch(expected):
            raise mismatch
        if changes := checkpoint.changes(expected):
            say(f"{spec.name}: changed since checkpoint step {checkpoint.progress.step}: {changes}")
        return path.name
    return ""


def _expected(spec: StageSpec) -> Expected:
    return Expected(
        stage=spec.name,
        fingerprint=spec.fingerprint,
        settings=spec.settings,
        parameters=shapes(spec),
        data=lambda progress: data_of(spec, progress),
        made_with=made_with(spec),
    )


def _skip(path: Path, problem: str, skipped: set[Path], tidying: bool) -> None:
    skipped.add(path)
    aside = f"; kept as {set_aside(path).name}" if tidying else ""
    step, _ = step_and_attempt(path)
    left = [other.name for other in checkpoints(path.parent, step) if other not in skipped]
    then = f"resuming from {left[0]}" if left else "no earlier checkpoint: starting from scratch"
    say(f"{path}: cannot resume from this checkpoint: {problem}{aside}; {then}")


def _damage(
    spec: StageSpec, checkpoint: Checkpoint, files: Mapping[str, Any] | None = None
) -> str | None:
    """Verify a share of the files on each rank; return a problem found on any (collective)."""
    problem = checkpoint.damage(slice(spec.ranks.rank, None, spec.ranks.world_size), files)
    if problem and not spec.ranks.is_first:  # rank 0 reports only its own share
        log.warning("%s: %s", checkpoint.path, problem)
    if process_group.all_sum([int(problem is not None)]) == [0]:
        return None
    return problem or "its files are corrupt (SHA-256 differs)"


def read_branch(name: str, branch: Branch) -> Checkpoint:
    """Read the checkpoint from which stage `name` branches; `UserError` if it is missing."""
    rule, fix = None, "rerun that stage with checkpoint.changed=restart"
    try:
        checkpoint = Checkpoint.read(branch.path)
    except BadCheckpoint as error:
        rule = f"{branch.path}: {error}"
    else:
        if checkpoint.state.fingerprint != branch.fingerprint:
            rule = f"{branch.path}: is a checkpoint of {branch.stage} with other settings"
    if rule:
        raise UserError(f"stages.{name}.from", branch.point, rule, fix)
    return checkpoint


def _start_of_branch(spec: StageSpec) -> Checkpoint | None:
    """Return the verified checkpoint from which the stage branches, progress 0 (collective)."""
    branch = spec.branch
    if branch is None:
        return None
    key = f"stages.{spec.name}.from"
    checkpoint = read_branch(spec.name, branch)
    if differ := other_parameters(checkpoint.state, shapes(spec)):
        raise UserError(
            key,
            branch.point,
            f"its trained parameters have other shapes: {', '.join(differ[:3])}",
            f"use the settings of stages.{branch.stage} in stages.{spec.name}, or use "
            f"from={branch.stage}",
        )
    if problem := _damage(spec, checkpoint):
        raise UserError(
            key,
            branch.point,
            f"{branch.path}: {problem}",
            "remove that folder, and rerun the stage with checkpoint.changed=restart",
        )
    if spec.ranks.is_first:
        say(f"{spec.name}: starting from {branch.point}, with its optimizer states")
    start = Progress(recent=list(checkpoint.progress.recent))
    return Checkpoint(checkpoint.path, replace(checkpoint.state, progress=start))


def shapes(spec: StageSpec) -> dict[str, str]:
    """Return the shapes of the trained parameters by name, as `4096 x 64`."""
    found = spec.trainable.parameters.items()
    return {name: " x ".join(map(str, full_shape(p))) for name, p in found}


def data_of(spec: StageSpec, progress: Progress) -> dict[str, Any]:
    """Return the state of the reader: the text it reads, and its position there."""
    before = spec.plan.batches_before
    return {
        "fingerprint": spec.reader.fingerprint,
        "rows_per_epoch": spec.reader.rows_per_epoch,
        "next_row": spec.plan.first_row(progress.batch),
        **({"batches_before": before} if before else {}),
    }


def made_with(spec: StageSpec) -> dict[str, Any]:
    """Return values that may change from one start to the next and are reported if they do."""
    return {
        "ranks": spec.ranks.world_size,
        "zero.stage": spec.zero.stage,
        "parallel.sequence": spec.layout.sequence,
        "parallel.tensor": spec.layout.tensor,
        "rows of a micro-batch": spec.plan.micro_rows,
    }


def restore(engine: Any, spec: StageSpec, checkpoint: Checkpoint) -> None:
    """Restore weights, optimizer and loss scale of DeepSpeed's `engine` (collective)."""
    state, path = checkpoint.state, checkpoint.path
    tensors: Mapping[str, torch.Tensor]
    if state.layout == "whole":
        tensors = WholeTensors(path)
    elif state.division == division_of(engine, spec):
        groups = [_options(group) for group in engine.optimizer.param_groups]
        load_sharded(engine, path)
        for group, options in zip(engine.optimizer.param_groups, groups, strict=True):
            group.update(options)  # a branch has its own learning rate
        return
    else:
        _convert(spec, checkpoint)
        tensors = UniversalTensors(path, state.names)
    restore_states(engine, spec.trainable.parameters, tensors, state.optimizer)


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an optimizer's parameter group."""
    return {key: value for key, value in group.items() if key != "params"}


def _convert(spec: StageSpec, checkpoint: Checkpoint) -> None:
    """Convert a sharded checkpoint on rank 0 while the others wait (collective)."""
    path = checkpoint.path
    for last in (False, True):  # a damaged result is converted again, once
        if spec.ranks.is_first:
            say(f"{spec.name}: converting the checkpoint for another sharding")
        process_group.on_first_rank(lambda: convert(path))
        problem = _damage(spec, checkpoint, converted_files(path))
        if problem is None:
            return
        if last:
            raise UserError(f"{path}/universal", None, problem, "check the disk")
        if spec.ranks.is_first:
            say(f"{path}: {problem}")
            drop_converted(path)
        process_group.barrier()


def division_of(engine: Any, spec: StageSpec) -> str:
    """Return the fingerprint of the sharding of the states; "" without sharding."""
    zero = spec.zero
    if zero.stage == 0:
        return ""
    return division(
        engine,
        spec.ranks.world_size,
        spec.train.precision,
        [zero.stage, zero.offload_optimizer, zero.offload_parameters, zero.extra],
    )
