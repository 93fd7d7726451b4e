"""The training loop of one stage: read, synchronise, compute, guard, update, log, save, stop.

`train` resumes from the latest checkpoint, bit-identical to an uninterrupted run.
"""

import math
import time
from dataclasses import replace

import torch

from hpc_llm.errors import BudgetSpent, Diverged, Stopped
from hpc_llm.training import process_group
from hpc_llm.training.checkpoints.result import stage_result
from hpc_llm.training.checkpoints.resume import load_latest
from hpc_llm.training.checkpoints.saver import Saver
from hpc_llm.training.data.prefetch import Prefetch
from hpc_llm.training.data.rows import Counts, Rows
from hpc_llm.training.engine import Engine, start_engine
from hpc_llm.training.forensics import StepRecord, batch_sum, chained
from hpc_llm.training.guards import Anomaly, diverged, judge_gradient, judge_loss, recent_losses
from hpc_llm.training.meter import Metering
from hpc_llm.training.progress import COUNTERS, LogWindow, Progress
from hpc_llm.training.schedules import relative_rate
from hpc_llm.training.spec import Hooks, StageSpec, TrainedStage
from hpc_llm.training.stragglers import Stragglers
from hpc_llm.training.watchdog import Watchdog

__all__ = ["Loop", "train"]


def train(spec: StageSpec, hooks: Hooks) -> TrainedStage:
    """Train one stage to its last step.

    Raises `Stopped` after saving when `hooks.stop_reason` requests it on any rank, `BudgetSpent`
    after saving when `hooks.over_budget` does, and `Diverged`, without saving, when a guard stops.
    """
    start = load_latest(spec)
    with start_engine(spec.trainable, spec, start) as engine:
        loop = Loop(spec, hooks, engine, start.progress if start else Progress())
        if loop.progress.step and spec.ranks.is_first:
            hooks.resumed(loop.progress)
        watchdog = Watchdog(spec.ranks, spec.guards.stall_minutes, hooks.stalled)
        with watchdog as loop.watchdog, loop.saver:
            loop.look(again=True)
            while not loop.ended():
                loop.step()
            loop.check_finite()
            loop.end()
        return replace(stage_result(spec, loop.progress), ended=loop.metering.reason)


class Loop:
    """The state of a stage during training."""

    def __init__(self, spec: StageSpec, hooks: Hooks, engine: Engine, progress: Progress) -> None:
        """Start after `progress`."""
        self.spec, self.hooks, self.engine, self.progress = spec, hooks, engine, progress
        self.watchdog = Watchdog(spec.ranks, None, hooks.stalled)
        self.records: list[StepRecord] = []
        self.last: StepRecord | None = None
        self.loss_sum = self.labels = self.rate = 0.0
        self.logged = progress
        self._take_window(progress)
        self.rows = Prefetch(spec.reader, spec.plan, spec.place.data)
        self.saver = Saver(spec, engine.engine, progress, hooks.unsaved)
        self.stragglers = Stragglers(spec.guards.slow_factor)
        self.saved, self.saved_step = time.monotonic(), progress.step
        report = hooks.metered if spec.ranks.is_first else lambda done, metrics: None
        self.metering = Metering(spec.meter, spec.trainable.causal, report)

    def ended(self) -> bool:
        """Whether the stage has reached its length, or ends early."""
        return self.metering.reason is not None or self.spec.length.ended(self.progress)

    def look(self, *, again: bool = False) -> None:
        """Measure source text if due (collective); `again`: after a resume."""
        if self.metering.due(self.progress):
            self.watchdog.at(self.progress.step, "evaluates")
            self.metering.look(self.progress, again=again)

    def _take_window(self, progress: Progress) -> None:
        """Restore the steps since the last log line, as in an uninterrupted run."""
        window = progress.window
        if window is None:
            return
        self.records = [StepRecord.of(values) for values in window.records]
        self.loss_sum, self.labels = window.loss_sum, window.labels
        self.logged = replace(progress, **{name: getattr(window, name) for name in COUNTERS})

    def step(self) -> None:
        """Run one step; save, stop or roll back if due."""
        spec, progress = self.spec, self.progress
        self.saver.boundary()
        self.watchdog.at(progress.step, "reads")
        rows = self.rows.take(progress.batch)
        self.watchdog.at(progress.step, "synchronises")
        indices = spec.plan.indices(progress.batch, spec.place.data)
        counts, batch = self._synchronise(Counts.of(rows), batch_sum(indices, rows))
        began = time.monotonic()
        record, anomaly = self._compute(rows, counts, batch)
        done = self._counted(record, counts, time.monotonic() - began)
        if anomaly is not None:
            done = self._answer(anomaly, replace(done, troubles=progress.troubles + 1))
        elif not record.applied:
            done = replace(done, skipped=progress.skipped + 1)
        self.progress = done
        self.look()
        due = done.step % spec.train.log_steps == 0 or self.ended()
        if due and self.records:  # none after a rollback
            self._log()

    def _synchronise(self, counts: Counts, batch: int) -> tuple[Counts, int]:
        """All-reduce the step's counts and any rank's request to save or stop before it.

        Returns the counts and the batch fingerprint over all ranks.
        """
        spec, hooks, progress = self.spec, self.hooks, self.progress
        due = time.monotonic() - self.saved > 60 * spec.checkpoint.minutes or self._branches()
        limit = hooks.over_budget(progress) if spec.ranks.is_first else None
        requests = (due, hooks.stop_reason() is not None, limit is not None)
        values = [*(n * spec.place.counts_rows for n in (*counts, batch)), *map(int, requests)]
        *sums, batch, save, stop, spent = process_group.all_sum(values)
        if (save or stop or spent) and progress.step:
            self._save()
        if spent:
            raise BudgetSpent(limit or "rank 0 reports the limit")
        if stop:
            raise Stopped(hooks.stop_reason() or "another rank received a stop request")
        return Counts(*sums), batch

    def _branches(self) -> bool:
        """Whether a later stage branches from this step and it is not saved yet."""
        step = self.progress.step
        return step in self.spec.branch_steps and step != self.saved_step

    def check_finite(self) -> None:
        """Raise `Diverged` if the loss after the last update is NaN or infinite (collective)."""
        self.watchdog.at(self.progress.step, "computes")
        rows = self.rows.take(self.progress.batch)
        loss = self._sum_loss(self.engine.loss_of(rows[0]))
        if not math.isfinite(loss):
            anomaly = Anomaly(kind="not_finite", action="stop", value=loss)
            raise self._diverged(anomaly, self.progress)

    def _diverged(self, anomaly: Anomaly, done: Progress) -> Diverged:
        spec = self.spec
        return diverged(
            anomaly, spec.guards, stage=spec.name, step=done.step, count=done.troubles,
            peak_rate=spec.peak_rate,
        )  # fmt: skip

    def end(self) -> None:
        """Save after the last step if a later stage branches from it (collective)."""
        if self._branches():
            self.saver.boundary()
            self._save()

    def _save(self) -> None:
        self.watchdog.at(self.progress.step, "saves")
        if self.spec.ranks.is_first:
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
    ) -> tuple[StepRecord, Anomaly | None]:
        """Compute the gradient, judge the loss, update unless it is anomalous, judge the norm."""
        spec, progress, engine = self.spec, self.progress, self.engine
        labels = counts.label_tokens
        self.watchdog.at(progress.step, "computes")
        self.rate = rate = self._relative_rate(counts)
        torch.manual_seed(spec.seed * 1_000_003 + spec.plan.batches_before + progress.batch)
        total = self._sum_loss(float(engine.accumulate(rows, labels, rate)))
        loss = total / max(1, labels)
        anomaly = judge_loss(spec.guards, progress.recent, loss)
        self.watchdog.at(progress.step, "updates")
        applied = engine.update(leave_out=anomaly is not None)
        norm = engine.gradient_norm() if applied else None
        if anomaly is None and not engine.rescaled:
            anomaly = judge_gradient(spec.guards, norm, applied)
        if applied and anomaly is None:
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
        return record, anomaly

    def _sum_loss(self, loss: float) -> float:
        """Sum a loss over the ranks (collective); tensor-parallel ranks compute the same one."""
        return process_group.all_sum_float(loss / self.spec.layout.tensor)

    def _relative_rate(self, counts: Counts) -> float:
        progress = self.progress
        flops = self.hooks.step_flops(counts.tokens, counts.squared_lengths)
        after = replace(
            progress,
            step=progress.step + 1,
            tokens=progress.tokens + counts.tokens,
            flops=progress.flops + flops,
        )
        return relative_rate(self.spec.schedule, self.spec.length.middle(progress, after))

    def _counted(self, record: StepRecord, counts: Counts, seconds: float) -> Progress:
        recent = self.progress.recent
        if record.applied:
            recent = recent_losses(recent, record.loss, self.spec.guards.spike_window)
        flops = self.hooks.step_flops(counts.tokens, counts.squared_lengths)
        return self.progress.after(record, counts, recent, flops, seconds)

    def _answer(self, anomaly: Anomaly, done: Progress) -> Progress:
        """Apply the configured action to `anomaly`; return where the stage continues."""
        spec = self.spec
        if done.troubles > spec.guards.most_skips:
            anomaly = replace(anomaly, action="stop")
        back = None
        if anomaly.action == "rollback":
            self.saver.finish()
            back = load_latest(spec)
        if anomaly.action == "rollback" and back is None:
            anomaly = replace(anomaly, action="stop")
        if spec.ranks.is_first:
            self.hooks.anomaly(anomaly, self.records[-1])
        if anomaly.action == "stop":
            self.progress = done
            self._log()  # else the steps since the last line would be lost
            raise self._diverged(anomaly, done)
        if back is None:
            return done
        if spec.ranks.is_first:
            self.hooks.saving(done)
        self.engine.restore(back)
        self.records.clear()
        self.loss_sum = self.labels = 0.0
        self.logged = back.progress
        self._take_window(back.progress)
        if spec.ranks.is_first:
            self.hooks.resumed(back.progress)
        return replace(back.progress, batch=done.batch, chain=done.chain, troubles=done.troubles)

    def _log(self) -> None:
        spec, progress, logged = self.spec, self.progress, self.logged
        seconds, waited = progress.seconds - logged.seconds, self.rows.waited
        tokens = progress.tokens - logged.tokens
        metrics: dict[str, float] = {
            "train/learning_rate": self.rate * spec.peak_rate,
            "perf/tokens_per_second": tokens / seconds,
            "perf/bytes_per_second": tokens / seconds * spec.reader.bytes_per_token,
            "perf/flops_per_second": (progress.flops - logged.flops) / seconds,
            "perf/packing_efficiency": tokens / (progress.positions - logged.positions),
            "perf/data_share": process_group.all_max_float(waited / (waited + seconds)),
        }
        metrics |= self._compare_ranks()
        if self.labels:  # 0 if a guard skipped all of these steps
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
        if spec.ranks.is_first:
            self.hooks.log(self.progress, metrics, self.records)
        self.records = []
        self.loss_sum = self.labels = self.rows.waited = 0.0
        self.logged = self.progress

    def _compare_ranks(self) -> dict[str, float]:
        """Return the slowdown of the slowest rank over the median; report stragglers."""
        own = self.engine.clock.take()
        if self.spec.layout.data < max(2, self.spec.ranks.world_size) or self.spec.zero.stage == 3:
            return {}
        worst, names = self.stragglers.look(own)
        if names and self.spec.ranks.is_first:
            self.hooks.straggling(names, self.progress.step)
        return {"perf/slowest_rank": worst}
