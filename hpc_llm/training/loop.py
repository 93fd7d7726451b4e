"""The training loop of one stage: read, step, log, save, stop.

`train` goes on from the newest checkpoint of the stage if there is one, and ends with the same
weights, bit for bit, as a run that was never interrupted.
"""

import math
import time
from dataclasses import replace

import torch

from hpc_llm.errors import BudgetSpent, Diverged, Stopped
from hpc_llm.training import process_group
from hpc_llm.training.checkpoint import Progress, newest, write_snapshot
from hpc_llm.training.engine import Engine, start_engine
from hpc_llm.training.job import Hooks, StageJob, TrainedStage
from hpc_llm.training.schedules import relative_rate
from hpc_llm.training.shards import Rows
from hpc_llm.training.states import full_parameter

__all__ = ["train"]


def train(job: StageJob, hooks: Hooks) -> TrainedStage:
    """Train one stage to its last step.

    Raises `Stopped` after saving when `hooks.stop_reason` says so on any rank, `BudgetSpent` after
    saving when `hooks.over_budget` does, and `Diverged`, without saving, when the loss is not
    finite on any.
    """
    snapshot = newest(job.folder, job.fingerprint)
    engine = start_engine(job.trainable, job, snapshot)
    progress = snapshot.progress if snapshot else Progress()
    if snapshot and job.ranks.is_first:
        hooks.resumed(progress)
    meter = _Meter(job, hooks, progress)
    saved = time.monotonic()
    while progress.step < job.steps:
        rows = [job.reader.read(part) for part in job.plan.indices(progress.step, job.ranks.rank)]
        due = time.monotonic() - saved > 60 * job.train.checkpoint_minutes
        limit = hooks.over_budget(progress) if job.ranks.is_first else None
        wishes = (due, hooks.stop_reason() is not None, limit is not None, not meter.finite)
        counts, (save, stop, spent, diverged) = _agree(rows, wishes)
        if diverged:
            raise _diverged(job, progress.step)
        if (save or stop or spent) and progress.step:
            if job.ranks.is_first:
                hooks.saving(progress)
            _save(job, engine, progress)
            saved = time.monotonic()
        if spent:
            raise BudgetSpent(limit or "rank 0 tells which limit")
        if stop:
            raise Stopped(hooks.stop_reason() or "another rank was asked to stop")
        progress = meter.step(engine, rows, counts, progress)
    return _result(job, progress)


def _agree(rows: list[Rows], wishes: tuple[bool, ...]) -> tuple[list[int], list[bool]]:
    """Let all ranks agree on the step's token counts, and on what any of them wishes before it."""
    counts = [
        sum(r.tokens for r in rows),
        sum(r.label_tokens for r in rows),
        sum(r.squared_lengths for r in rows),
    ]
    sums = process_group.all_sum([*counts, *map(int, wishes)])
    return sums[: len(counts)], [wish > 0 for wish in sums[len(counts) :]]


def _diverged(job: StageJob, step: int) -> Diverged:
    return Diverged(
        f"train.{job.name}: the loss is not a number at step {step}; give a smaller "
        f"train.{job.name}.learning_rate (it was {job.peak_rate:g})"
    )


def _save(job: StageJob, engine: Engine, progress: Progress) -> None:
    tensors, optimizer_step = engine.states()
    if job.ranks.is_first:
        progress = replace(progress, optimizer_step=optimizer_step)
        write_snapshot(job.folder, progress, tensors, job.fingerprint)
    process_group.barrier()


class _Meter:
    """Runs steps and adds up what they took and gave between two log lines."""

    def __init__(self, job: StageJob, hooks: Hooks, progress: Progress) -> None:
        self.job, self.hooks = job, hooks
        self.loss_sum = torch.zeros((), dtype=torch.float64)
        self.last = replace(progress)

    @property
    def finite(self) -> bool:
        """Whether this rank's losses since the last log line are numbers."""
        return math.isfinite(float(self.loss_sum))

    def step(
        self, engine: Engine, rows: list[Rows], counts: list[int], progress: Progress
    ) -> Progress:
        job, began = self.job, time.monotonic()
        tokens, labels, squares = counts
        rate = relative_rate(job.schedule, progress.step, job.steps)
        torch.manual_seed(job.seed * 1_000_003 + progress.step)
        self.loss_sum += engine.step(rows, labels, rate)
        done = replace(
            progress,
            step=progress.step + 1,
            tokens=progress.tokens + tokens,
            label_tokens=progress.label_tokens + labels,
            squared_lengths=progress.squared_lengths + squares,
            flops=progress.flops + self.hooks.step_flops(tokens, squares),
            seconds=progress.seconds + time.monotonic() - began,
        )
        if done.step % job.train.log_steps == 0 or done.step == job.steps:
            done = self._log(engine, done, rate)
        return done

    def _log(self, engine: Engine, progress: Progress, rate: float) -> Progress:
        labels = progress.label_tokens - self.last.label_tokens
        loss = process_group.all_sum_float(float(self.loss_sum)) / labels
        if not math.isfinite(loss):
            raise _diverged(self.job, progress.step)
        seconds = progress.seconds - self.last.seconds
        tokens = progress.tokens - self.last.tokens
        metrics: dict[str, float] = {
            "train/loss": loss,
            "train/learning_rate": rate * self.job.peak_rate,
            "perf/tokens_per_second": tokens / seconds,
            "perf/bytes_per_second": tokens / seconds * self.job.reader.bytes_per_token,
            "perf/flops_per_second": (progress.flops - self.last.flops) / seconds,
            "perf/packing_efficiency": self.job.reader.packing.efficiency,
        }
        norm = engine.gradient_norm()
        if norm is not None:
            metrics["train/gradient_norm"] = norm
        progress = replace(progress, loss=loss)
        self.hooks.measure()
        if self.job.ranks.is_first:
            self.hooks.log(progress, metrics)
        self.loss_sum.zero_()
        self.last = progress
        return progress


def _result(job: StageJob, progress: Progress) -> TrainedStage:
    trainable = job.trainable
    weights = {name: full_parameter(p) for name, p in trainable.weights.items()}
    adapters = {name: full_parameter(p) for name, p in trainable.adapters.items()}
    return TrainedStage(progress, weights, adapters)
