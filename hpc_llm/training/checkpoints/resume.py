"""Going on from a checkpoint: the newest that is whole, checked before anything is computed.

All ranks take the same one: rank 0 chooses, each rank compares a share of its files with their
hashes, and one that fails is put aside for the one before. A checkpoint of another stage, of
another model or of other settings is refused with what differs.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hpc_llm.distributed import say
from hpc_llm.errors import FirstRankFailed, UserError, exit_code
from hpc_llm.training import process_group
from hpc_llm.training.checkpoints.differences import made_otherwise, other_model, refusal
from hpc_llm.training.checkpoints.folder import (
    BadCheckpoint,
    CheckpointState,
    checkpoints,
    numbered,
    read_state,
    set_aside,
    step_and_attempt,
    tidy,
    verify,
)
from hpc_llm.training.checkpoints.sharded import division, load_sharded
from hpc_llm.training.checkpoints.states import restore_states
from hpc_llm.training.checkpoints.universal import UniversalTensors, convert, converted_files
from hpc_llm.training.checkpoints.whole import WholeTensors
from hpc_llm.training.job import StageJob
from hpc_llm.training.progress import Progress

__all__ = ["Snapshot", "division_of", "made_with", "restore", "shapes", "take_up"]

log = logging.getLogger(__name__)

ATTEMPTS = 1000  # of one step, at most


@dataclass(frozen=True)
class Snapshot:
    """One checkpoint that can be gone on from."""

    path: Path
    state: CheckpointState

    @property
    def progress(self) -> Progress:
        """The counters at its step."""
        return self.state.progress


def take_up(job: StageJob, *, last: int | None = None, tidying: bool = True) -> Snapshot | None:
    """Return the newest whole checkpoint of the job, with `last` none of a later step; or None.

    Collective. What is not whole is put aside and said, and what killed writers left is removed,
    but not without `tidying`. Raises `UserError` for a checkpoint that is not of this job.
    """
    if job.ranks.is_first and tidying:
        for name in tidy(job.folder):
            say(f"{job.name}: {name} was not finished when its writer ended; removed")
    passed: set[Path] = set()
    while (path := _propose(job, last, passed, tidying)) is not None:
        snapshot = Snapshot(path, read_state(path))
        if (problem := _damage(job, path, snapshot.state.files)) is None:
            return snapshot
        if job.ranks.is_first:
            _pass_over(path, problem, passed, tidying)
    return None


def _propose(job: StageJob, last: int | None, passed: set[Path], tidying: bool) -> Path | None:
    """Let rank 0 choose the newest checkpoint with a whole marker; all ranks get its path."""
    number, failure = 0, None
    if job.ranks.is_first:
        try:
            number = _newest(job, last, passed, tidying)
        except UserError as error:
            number, failure = -exit_code(error), error
    number = process_group.broadcast_status(number)
    if failure:
        raise failure
    if number < 0:
        raise FirstRankFailed(-number)
    return job.folder / numbered(*divmod(number, ATTEMPTS)) if number else None


def _newest(job: StageJob, last: int | None, passed: set[Path], tidying: bool) -> int:
    """Return the newest checkpoint as step * ATTEMPTS + attempt, or 0."""
    for path in checkpoints(job.folder, last):
        if path in passed:
            continue
        try:
            state = read_state(path)
        except BadCheckpoint as error:
            _pass_over(path, str(error), passed, tidying)
            continue
        for problem in (
            refusal(path, state, job.name, job.fingerprint, job.settings),
            other_model(path, state, shapes(job)),
            _other_data(path, state, job),
        ):
            if problem:
                raise UserError(problem)
        if changes := made_otherwise(state, made_with(job)):
            say(f"{job.name}: since its checkpoint of step {state.progress.step}: {changes}")
        step, attempt = step_and_attempt(path)
        return step * ATTEMPTS + attempt
    return 0


def _other_data(path: Path, state: CheckpointState, job: StageJob) -> str | None:
    if state.data == data_of(job, state.progress):
        return None
    return (
        f"{path}: the text is another one than it was ({state.data} -> "
        f"{data_of(job, state.progress)}); "
        f"give back the text's shards as they were, or remove {path.parent} to begin anew"
    )


def _pass_over(path: Path, problem: str, passed: set[Path], tidying: bool) -> None:
    passed.add(path)
    aside = f"; kept as {set_aside(path).name}" if tidying else ""
    step, _ = step_and_attempt(path)
    left = [other.name for other in checkpoints(path.parent, step) if other not in passed]
    then = f"taking {left[0]}" if left else "no earlier one is left: the stage begins anew"
    say(f"{path}: cannot be gone on from: {problem}{aside}; {then}")


def _damage(job: StageJob, path: Path, files: Mapping[str, Any]) -> str | None:
    """Let every rank compare its share of the files; tell what is wrong on any (collective)."""
    problem = None
    try:
        verify(path, dict(files), slice(job.ranks.rank, None, job.ranks.world_size))
    except BadCheckpoint as error:
        problem = str(error)
        if not job.ranks.is_first:  # which tells only what it has seen itself
            log.warning("%s: %s", path, error)
    if process_group.all_sum([int(problem is not None)]) == [0]:
        return None
    return problem or "its files are not what was written"


def shapes(job: StageJob) -> dict[str, str]:
    """Return the shapes of what is trained by name, as `4096 x 64`."""
    found = job.trainable.parameters.items()
    return {name: " x ".join(map(str, getattr(p, "ds_shape", p.shape))) for name, p in found}


def data_of(job: StageJob, progress: Progress) -> dict[str, Any]:
    """Return the state of the reader: which text it reads, and its place there."""
    return {
        "fingerprint": job.reader.fingerprint,
        "rows_per_epoch": job.reader.rows_per_epoch,
        "next_row": job.plan.first_row(progress.batch),
    }


def made_with(job: StageJob) -> dict[str, Any]:
    """Return what may change from one start to the next, and is worth telling."""
    return {
        "ranks": job.ranks.world_size,
        "zero.stage": job.zero.stage,
        "rows of a micro-batch": job.plan.micro_rows,
    }


def restore(engine: Any, job: StageJob, snapshot: Snapshot) -> None:
    """Set weights, optimizer and loss scale of DeepSpeed's `engine` (collective)."""
    state, path = snapshot.state, snapshot.path
    tensors: Mapping[str, torch.Tensor]
    if state.layout == "whole":
        tensors = WholeTensors(path)
    elif state.division == division_of(engine, job):
        load_sharded(engine, path)
        return
    else:
        _convert(job, path)
        tensors = UniversalTensors(path, state.names)
    restore_states(engine, job.trainable.parameters, tensors, state.optimizer)


def _convert(job: StageJob, path: Path) -> None:
    """Let rank 0 convert a sharded checkpoint while the others wait (collective)."""
    failure: Exception | None = None
    if job.ranks.is_first:
        say(f"{job.name}: the checkpoint is converted for another division among the ranks")
        try:
            convert(path)
        except (UserError, OSError) as error:
            failure = error
    code = process_group.broadcast_status(exit_code(failure) if failure else 0)
    if failure:
        raise failure
    if code:
        raise FirstRankFailed(code)
    if problem := _damage(job, path, converted_files(path)):
        raise UserError(f"{path}/universal: {problem}; remove that folder")


def division_of(engine: Any, job: StageJob) -> str:
    """Return the fingerprint of how the states are divided; "" where they are not."""
    zero = job.zero
    if zero.stage == 0:
        return ""
    return division(
        engine,
        job.ranks.world_size,
        job.train.precision,
        [zero.stage, zero.offload_optimizer, zero.offload_parameters, zero.extra],
    )
