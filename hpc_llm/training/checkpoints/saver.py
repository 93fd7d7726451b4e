"""Asynchronous checkpointing: training pauses while states are copied; a thread writes the copy.

At most one checkpoint is pending. Until it is complete, the ranks all-reduce its status at every
step boundary, so an error of any writer ends the run on all ranks and leaves the previous
checkpoint untouched. If the disk is full and `guards.full_disk=skip`, all ranks continue without
this checkpoint. A killed writer leaves only a temporary folder.
"""

import errno
import math
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from hpc_llm.errors import EXIT_USER, Diverged, FirstRankFailed, Stopped, UserError
from hpc_llm.rundir import check_fence, read_json, start_number, write_json
from hpc_llm.training import process_group
from hpc_llm.training.checkpoints.differences import as_json
from hpc_llm.training.checkpoints.folder import commit, temporary_folder
from hpc_llm.training.checkpoints.marker import CheckpointState
from hpc_llm.training.checkpoints.resume import data_of, division_of, made_with, shapes
from hpc_llm.training.checkpoints.sharded import Capture, write_sharded
from hpc_llm.training.checkpoints.states import gather_states, optimizer_state
from hpc_llm.training.checkpoints.whole import FILE, write_tensors
from hpc_llm.training.progress import Progress
from hpc_llm.training.spec import StageSpec
from hpc_llm.training.transfers import HostCopies

__all__ = ["Saver", "layout_of"]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def layout_of(spec: StageSpec) -> str:
    """Return `whole` or `sharded`, by the settings and the number of trained parameters."""
    count, tensor = spec.trainable.count, spec.layout.tensor
    return spec.checkpoint.layout_for(count, spec.zero.stage, tensor)


class _Task:
    """Work in a separate thread; its error is kept."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.error: Exception | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self.error = error

    @property
    def busy(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> None:
        self._thread.join()


class Saver:
    """Saves one stage. All methods except `measures` are collective."""

    def __init__(
        self,
        spec: StageSpec,
        engine: Any,
        resumed: Progress | None,
        unsaved: Callable[[Progress], None],
    ) -> None:
        """Save the states of DeepSpeed's `engine`, which continues from `resumed`.

        `unsaved` is called on rank 0 for each checkpoint skipped because the disk is full.
        """
        self._job, self._engine, self._unsaved = spec, engine, unsaved
        self._skipped = 0
        self._layout = layout_of(spec)
        self._copies = HostCopies()
        self._capture = Capture()
        self._task: _Task | None = None
        self._pending: CheckpointState | None = None
        self._committing = False
        self._began = 0.0
        self._saved = resumed
        self._measures: dict[str, float] = {}

    def save(self, progress: Progress) -> None:
        """Copy the states at the end of a step and start writing; a step is not saved twice."""
        began = time.monotonic()
        self.finish()
        if self._saved and (self._saved.step, self._saved.batch) == (progress.step, progress.batch):
            return
        self._saved = progress
        state = self._state(progress)
        work = self._take_whole(state) if self._layout == "whole" else self._take_sharded(state)
        self._pending, self._committing = state, self._layout == "whole"
        self._began = time.monotonic()
        self._task = _Task(work) if work else None
        if not self._job.checkpoint.background:
            self.finish()
        stall = "perf/checkpoint_stall_seconds"
        self._measures[stall] = self._measures.get(stall, 0.0) + time.monotonic() - began

    def measures(self) -> dict[str, float]:
        """Return and reset the seconds that training paused for saving and that writing took."""
        measures, self._measures = self._measures, {}
        return measures

    def boundary(self) -> None:
        """Check the pending checkpoint at a step boundary; raises its error."""
        if self._pending is None:
            return
        task = self._task
        busy = task is not None and task.busy
        error = None if task is None or busy else task.error
        no_room = isinstance(error, OSError) and error.errno in NO_ROOM
        waiting, failures, full = process_group.all_sum([busy, error is not None, no_room])
        if failures > full or (full and not self._may_skip):
            self._fail()
        if waiting:
            return
        if full:
            self._skip()
        elif self._committing:
            self._measures["perf/checkpoint_write_seconds"] = time.monotonic() - self._began
            self._pending = self._task = None
        else:
            self._committing = True
            state = self._pending
            self._task = _Task(lambda: self._commit(state)) if self._job.ranks.is_first else None

    def finish(self) -> None:
        """Wait until the pending checkpoint is complete."""
        while self._pending is not None:
            if self._task is not None:
                self._task.join()
            self.boundary()

    def __enter__(self) -> "Saver":
        """Enter the context."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Complete the pending checkpoint if all ranks end together, else only this rank's part."""
        if error is None or isinstance(error, Stopped | Diverged):
            self.finish()
        elif isinstance(error, Exception) and self._task is not None:
            self._task.join()

    @property
    def _may_skip(self) -> bool:
        """Whether training continues without this checkpoint if the disk is full."""
        guards, state = self._job.guards, self._pending
        if state is not None and state.progress.step in self._job.branch_steps:
            return False
        return guards.full_disk == "skip" and self._skipped < guards.most_skips

    def _skip(self) -> None:
        """Continue without the pending checkpoint; no rank is writing it any longer."""
        state, self._pending, self._task, self._saved = self._pending, None, None, None
        assert state is not None
        self._skipped += 1
        if self._job.ranks.is_first:
            shutil.rmtree(self._temporary(state), ignore_errors=True)
            self._unsaved(state.progress)

    def _fail(self) -> None:
        """Raise the writer's error on the rank that has it, and a generic one on the others."""
        task, self._task, state, self._pending = self._task, None, self._pending, None
        assert state is not None
        if task is not None and task.error is not None:
            raise task.error
        if self._committing:
            raise FirstRankFailed(EXIT_USER)
        raise UserError(
            str(self._temporary(state)),
            None,
            "another rank could not write its part of the checkpoint",
            "see the error of that rank",
        )

    def _temporary(self, state: CheckpointState) -> Path:
        return temporary_folder(self._job.folder, state.progress.step, start_number())

    def _state(self, progress: Progress) -> CheckpointState:
        spec, optimizer = self._job, optimizer_state(self._engine)
        known = progress.loss is not None and math.isfinite(progress.loss)
        names, divided = {}, ""
        if self._layout == "sharded":
            found = spec.trainable.parameters.items()
            names = {name: self._engine.param_names[p] for name, p in found}
            divided = division_of(self._engine, spec)
        return CheckpointState(
            stage=spec.name,
            fingerprint=spec.fingerprint,
            progress=replace(progress, loss=progress.loss if known else None),
            layout=self._layout,
            data=data_of(spec, progress),
            parameters=shapes(spec),
            settings=as_json(spec.settings),
            made_with=made_with(spec),
            optimizer=optimizer,
            division=divided,
            names=names,
        )

    def _take_whole(self, state: CheckpointState) -> Callable[[], None] | None:
        copies = self._copies if self._job.ranks.is_first else None
        tensors = gather_states(self._engine, self._job.trainable.parameters, copies)

        def write() -> None:
            folder = self._temporary(state)
            check_fence(folder)
            folder.mkdir(parents=True)
            try:
                state.files = {FILE: write_tensors(folder / FILE, tensors)}
                self._commit(state)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        return write if self._job.ranks.is_first else None

    def _take_sharded(self, state: CheckpointState) -> Callable[[], None]:
        contents = self._capture.take(self._engine)
        folder, rank = self._temporary(state), self._job.ranks.rank

        def write() -> None:
            try:
                write_json(folder / f"{rank}.json", write_sharded(folder, contents))
            except Exception:
                if not self._may_skip:  # else other ranks may still be writing there
                    shutil.rmtree(folder, ignore_errors=True)  # free the space
                raise

        return write

    def _commit(self, state: CheckpointState) -> None:
        """Merge the ranks' file lists and commit the checkpoint."""
        folder = self._temporary(state)
        for part in folder.glob("*.json"):
            state.files |= read_json(part)
            part.unlink()
        settings = self._job.checkpoint
        commit(
            folder,
            state,
            settings.keep,
            keep_best=settings.keep_best,
            branches=self._job.branch_steps,
        )
