"""The training loop of one stage: read, synchronise, compute, guard, update, log, save, stop.

`train` resumes from the latest checkpoint, with the bits of an uninterrupted run.
"""

import time
from dataclasses import replace

import torch

from hpc_llm.errors import BudgetSpent, Diverged, Stopped
from hpc_llm.training import process_group
from hpc_llm.training.checkpoints.resume import load_latest
from hpc_llm.training.checkpoints.saver import Saver
from hpc_llm.training.checkpoints.states import full_parameters
from hpc_llm.training.data.prefetch import Prefetch
from hpc_llm.training.data.rows import Counts, Rows
from hpc_llm.training.engine import Engine, start_engine
from hpc_llm.training.forensics import StepRecord, batch_sum, chained
from hpc_llm.training.guards import Trouble, judge_gradient, judge_loss, recent_losses
from hpc_llm.training.job import Hooks, StageJob, TrainedStage
from hpc_llm.training.progress import COUNTERS, LogWindow, Progress
from hpc_llm.training.schedules import relative_rate
from hpc_llm.training.stragglers import Stragglers
from hpc_llm.training.watchdog import Watchdog

__all__ = ["Loop", "train"]


def train(job: StageJob, hooks: Hooks) -> TrainedStage:
    """Train one stage to its last step.

    Raises `Stopped` after saving when `hooks.stop_reason` says so on any rank, `BudgetSpent` after
    saving when `hooks.over_budget` does, and `Diverged`, without saving, when a guard says stop.
    """
    start = load_latest(job)
    with start_engine(job.trainable, job, start) as engine:
        loop = Loop(job, hooks, engine, start.progress if start else Progress())
        if loop.progress.step and job.ranks.is_first:
            hooks.resumed(loop.progress)
        watchdog = Watchdog(job.ranks, job.guards.stall_minutes, hooks.stalled)
        with watchdog as loop.watchdog, loop.saver:
            while not job.length.ended(loop.progress):
                loop.step()
            loop.end()
        return _result(job, loop.progress)


class Loop:
    """The state of a stage while it trains."""

    def __init__(self, job: StageJob, hooks: Hooks, engine: Engine, progress: Progress) -> None:
        """Begin behind `progress`."""
        self.job, self.hooks, self.engine, self.progress = job, hooks, engine, progress
        self.watchdog = Watchdog(job.ranks, None, hooks.stalled)
        self.records: list[StepRecord] = []
        self.last: StepRecord | None = None
        self.loss_sum = self.labels = self.rate = 0.0
        self.logged = progress
        self._take_window(progress)
        self.rows = Prefetch(job.reader, job.plan, job.ranks.rank)
        self.saver = Saver(job, engine.engine, progress, hooks.unsaved)
        self.stragglers = Stragglers(job.guards.slow_factor)
        self.saved, self.saved_step = time.monotonic(), progress.step

    def _take_window(self, progress: Progress) -> None:
        """Go on with the steps since the last log line, as if nothing had been interrupted."""
        window = progress.window
        if window is None:
            return
        self.records = [StepRecord.of(values) for values in window.records]
        self.loss_sum, self.labels = window.loss_sum, window.labels
        self.logged = replace(progress, **{name: getattr(window, name) for name in COUNTERS})

    def step(self) -> None:
        """Make one step: or save, stop, or go back before it."""
        job, progress = self.job, self.progress
        self.saver.boundary()
        self.watchdog.at(progress.step, "reads")
        rows = self.rows.take(progress.batch)
        self.watchdog.at(progress.step, "agrees")
        indices = job.plan.indices(progress.batch, job.ranks.rank)
        counts, batch = self._agree(Counts.of(rows), batch_sum(indices, rows))
        began = time.monotonic()
        record, trouble = self._compute(rows, counts, batch)
        done = self._counted(record, counts, time.monotonic() - began)
        if trouble is not None:
            done = self._answer(trouble, replace(done, troubles=progress.troubles + 1))
        elif not record.applied:
            done = replace(done, skipped=progress.skipped + 1)
        self.progress = done
        due = done.step % job.train.log_steps == 0 or job.length.ended(done)
        if due and self.records:  # none after a rollback
            self._log()

    def _agree(self, counts: Counts, batch: int) -> tuple[Counts, int]:
        """Let all ranks agree on the step's counts, and on what any of them wishes before it.

        Returns the counts and the batch's fingerprint of all ranks.
        """
        job, hooks, progress = self.job, self.hooks, self.progress
        due = time.monotonic() - self.saved > 60 * job.checkpoint.minutes or self._branches()
        limit = hooks.over_budget(progress) if job.ranks.is_first else None
        wishes = (due, hooks.stop_reason() is not None, limit is not None)
        *sums, batch, save, stop, spent = process_group.all_sum([*counts, batch, *map(int, wishes)])
        if (save or stop or spent) and progress.step:
            self._save()
        if spent:
            raise BudgetSpent(limit or "rank 0 tells which limit")
        if stop:
            raise Stopped(hooks.stop_reason() or "another rank was asked to stop")
        return Counts(*sums), batch

    def _branches(self) -> bool:
        """Whether a later stage branches from this step and its checkpoint is still to be saved."""
        step = self.progress.step
        return step in self.job.branch_steps and step != self.saved_step

    def end(self) -> None:
        """Save after the last step where a later stage branches from it (collective)."""
        if self._branches():
            self.saver.boundary()
            self._save()

    def _save(self) -> None:
        self.watchdog.at(self.progress.step, "saves")
        if self.job.ranks.is_first:
            self.hooks.saving(self.progress)
        window = LogWindow(
            records=[record.as_list() for record in self.records],
            loss_sum=self.loss_sum,
            labels=self.labels,
            **{name: getattr(self.logged, name) for name in COUNTERS},
        )
        self.saver.save(replace(self.progress, window=window))
        self.saved, self.saved_step = time.monotonic(), self.progress.step

    def _compute(
        self, rows: list[Rows], counts: Counts, batch: int
    ) -> tuple[StepRecord, Trouble | None]:
        """Compute the gradient, judge the loss, update unless it is trouble, judge the norm."""
        job, progress, engine = self.job, self.progress, self.engine
        labels = counts.label_tokens
        self.watchdog.at(progress.step, "computes")
        self.rate = rate = self._relative_rate(counts)
        torch.manual_seed(job.seed * 1_000_003 + job.plan.batches_before + progress.batch)
        total = process_group.all_sum_float(float(engine.accumulate(rows, labels, rate)))
        loss = total / max(1, labels)
        trouble = judge_loss(job.guards, progress.recent, loss)
        self.watchdog.at(progress.step, "updates")
        applied = engine.update(leave_out=trouble is not None)
        norm = engine.gradient_norm() if applied else None
        if trouble is None and not engine.rescaled:
            trouble = judge_gradient(job.guards, norm, applied)
        if applied and trouble is None:
            self.loss_sum += total
            self.labels += labels
        record = StepRecord(
            step=progress.step + 1,
            batch=progress.batch,
            chain=chained(progress.chain, batch),
            loss=loss,
            gradient_norm=norm,
            applied=applied,
        )
        self.records.append(record)
        self.last = record
        return record, trouble

    def _relative_rate(self, counts: Counts) -> float:
        progress = self.progress
        flops = self.hooks.step_flops(counts.tokens, counts.squared_lengths)
        after = replace(
            progress,
            step=progress.step + 1,
            tokens=progress.tokens + counts.tokens,
            flops=progress.flops + flops,
        )
        return relative_rate(self.job.schedule, self.job.length.middle(progress, after))

    def _counted(self, record: StepRecord, counts: Counts, seconds: float) -> Progress:
        progress = self.progress
        recent = progress.recent
        if record.applied:
            recent = recent_losses(recent, record.loss, self.job.guards.spike_window)
        return replace(
            progress,
            step=record.step,
            batch=record.batch + 1,
            chain=record.chain,
            recent=recent,
            tokens=progress.tokens + counts.tokens,
            label_tokens=progress.label_tokens + counts.label_tokens,
            squared_lengths=progress.squared_lengths + counts.squared_lengths,
            positions=progress.positions + counts.positions,
            squared_widths=progress.squared_widths + counts.squared_widths,
            flops=progress.flops + self.hooks.step_flops(counts.tokens, counts.squared_lengths),
            seconds=progress.seconds + seconds,
        )

    def _answer(self, trouble: Trouble, done: Progress) -> Progress:
        """Do what the settings want done about trouble; return where the stage goes on."""
        job = self.job
        if done.troubles > job.guards.most_skips:
            trouble = replace(trouble, action="stop")
        back = None
        if trouble.action == "rollback":
            self.saver.finish()
            back = load_latest(job)
        if trouble.action == "rollback" and back is None:
            trouble = replace(trouble, action="stop")
        if job.ranks.is_first:
            self.hooks.trouble(trouble, self.records[-1])
        if trouble.action == "stop":
            self.progress = done
            self._log()  # the steps since the last line would be lost
            raise _diverged(job, trouble, done)
        if back is None:
            return done
        if job.ranks.is_first:
            self.hooks.saving(done)
        self.engine.restore(back)
        self.records.clear()
        self.loss_sum = self.labels = 0.0
        self.logged = back.progress
        self._take_window(back.progress)
        if job.ranks.is_first:
            self.hooks.resumed(back.progress)
        return replace(back.progress, batch=done.batch, chain=done.chain, troubles=done.troubles)

    def _log(self) -> None:
        job, progress, logged = self.job, self.progress, self.logged
        seconds, waited = progress.seconds - logged.seconds, self.rows.waited
        tokens = progress.tokens - logged.tokens
        metrics: dict[str, float] = {
            "train/learning_rate": self.rate * job.peak_rate,
            "perf/tokens_per_second": tokens / seconds,
            "perf/bytes_per_second": tokens / seconds * job.reader.bytes_per_token,
            "perf/flops_per_second": (progress.flops - logged.flops) / seconds,
            "perf/packing_efficiency": tokens / (progress.positions - logged.positions),
            "perf/data_share": process_group.all_max_float(waited / (waited + seconds)),
        }
        metrics |= self._compare_ranks()
        if self.labels:  # else a guard has left all of these steps out
            metrics["train/loss"] = self.loss_sum / self.labels
        if (norm := self.records[-1].gradient_norm) is not None:
            metrics["train/gradient_norm"] = norm
        metrics |= self.saver.measures()
        if progress.troubles:
            metrics["train/troubles"] = progress.troubles
        if scale := self.engine.loss_scale():
            metrics["train/loss_scale"] = scale["cur_scale"]
            metrics["train/skipped_steps"] = progress.skipped
        self.progress = replace(progress, loss=metrics.get("train/loss", progress.loss))
        self.hooks.measure()
        if job.ranks.is_first:
            self.hooks.log(self.progress, metrics, self.records)
        self.records = []
        self.loss_sum = self.labels = 0.0
        self.logged = self.progress
        self.rows.waited = 0.0

    def _compare_ranks(self) -> dict[str, float]:
        """Return how much slower than the others the slowest rank is; report who it is."""
        own = self.engine.clock.take()
        if self.job.ranks.world_size == 1 or self.job.zero.stage == 3:
            return {}
        worst, names = self.stragglers.look(own)
        if names and self.job.ranks.is_first:
            self.hooks.straggling(names, self.progress.step)
        return {"perf/slowest_rank": worst}


def _diverged(job: StageJob, trouble: Trouble, done: Progress) -> Diverged:
    where = f"train/{job.name}: step {done.step}"
    if trouble.kind == "not_finite":
        most = job.guards.most_skips
        stopped = job.guards.not_finite == "stop"
        other = ", or use guards.not_finite=skip" if stopped else f" ({most} skips were tried)"
        return Diverged(
            f"{where}: the loss or the gradient is NaN or infinite; use a smaller "
            f"stages.{job.name}.learning_rate (it was {job.peak_rate:g}) with "
            f"checkpoint.changed=restart{other}"
        )
    what = f"the loss {trouble.value:.4g} is a spike (limit {trouble.limit or 0:.4g})"
    if trouble.kind == "zero_gradient":
        what = "the gradient is zero, nothing trains"
    return Diverged(
        f"{where}: {what}; {done.troubles} of at most guards.most_skips={job.guards.most_skips} "
        f"anomalies; guards.{trouble.kind}=skip continues"
    )


def _result(job: StageJob, progress: Progress) -> TrainedStage:
    trainable = job.trainable
    keep = job.ranks.is_first
    return TrainedStage(
        progress,
        weights=full_parameters(trainable.weights, keep),
        adapters=full_parameters(trainable.adapters, keep),
    )
