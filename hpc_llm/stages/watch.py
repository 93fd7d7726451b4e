"""Reporting during training: ledger rows, events, console and remaining time.

The training loop counts steps, tokens and seconds; here they are converted to FLOPs, hours and
money.
"""

import time
from contextlib import ExitStack
from dataclasses import asdict, astuple, replace
from types import TracebackType
from typing import Any

from hpc_llm.accounting import StageFlops, pf_days, utilisation_metrics
from hpc_llm.distributed import say
from hpc_llm.errors import EXIT_FAILED
from hpc_llm.pipeline.account import measure_energy
from hpc_llm.pipeline.context import Context
from hpc_llm.rundir import note_start
from hpc_llm.stages.forecast import Pace, Rest
from hpc_llm.tracking import ProgressBar, duration
from hpc_llm.tracking import progress as progress_bar
from hpc_llm.training.forensics import StepRecord
from hpc_llm.training.guards import Anomaly
from hpc_llm.training.progress import Progress
from hpc_llm.training.spec import Hooks, StageSpec

__all__ = ["Watch"]


class Watch:
    """Connects the loop of one stage to the ledger, the events and the console."""

    def __init__(
        self, context: Context, spec: StageSpec, flops: StageFlops, later_flops: int
    ) -> None:
        """Watch `spec`; `later_flops` are the hardware FLOPs of later training stages."""
        self.context, self.spec, self.flops = context, spec, flops
        self.account = context.account
        self.stage = f"train/{spec.name}"
        self.pace = Pace(spec.steps, spec.plan.rows * flops.hardware_per_sequence, later_flops)
        self.logged = self.charged = Progress()
        self._stack = ExitStack()
        self._bar: ProgressBar | None = None
        self._projected = False

    def __enter__(self) -> "Watch":
        """Start the clock of the forecast."""
        self.pace.mark(0, time.time())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the progress bar."""
        self._stack.__exit__(kind, error, traceback)

    def hooks(self) -> Hooks:
        """Return the callbacks of the loop."""
        return Hooks(
            log=self._log,
            resumed=self._resumed,
            step_flops=self.flops.model,
            stop_reason=self.context.stop_reason,
            saving=lambda done: self._charge(done, "save"),
            over_budget=lambda done: self.account.over_budget(done.flops - self.charged.flops),
            unsaved=self._without_checkpoint,
            anomaly=self._anomaly,
            stalled=self._stalled,
            straggling=self._straggling,
            measure=lambda: measure_energy(self.account, self.context.ranks),
            metered=self._metered,
        )

    def _charge(self, done: Progress, reason: str) -> None:
        before, self.charged = self.charged, done
        tokens = done.tokens - before.tokens
        self.account.add(
            self.stage,
            step=done.step,
            reason=reason,
            tokens=tokens,
            padded_tokens=done.positions - before.positions - tokens,
            squared_lengths=done.squared_lengths - before.squared_lengths,
            flops=done.flops - before.flops,
            hardware_flops=self._hardware(before, done),
            flops_source=self.flops.source,
        )

    def _hardware(self, before: Progress, done: Progress) -> int:
        return self.flops.hardware(
            done.positions - before.positions, done.squared_widths - before.squared_widths
        )

    def _resumed(self, done: Progress) -> None:
        """Resume from a checkpoint; charge FLOPs that the ledger lacks (after a lost file)."""
        kept = self.account.ledger.useful_until(self.stage, done.step)
        missing = done.flops - kept.flops
        if missing:
            say(
                f"{self.stage}: the ledger has {kept.flops:,} FLOPs up to step {done.step}, the "
                f"checkpoint {done.flops:,}: charging the difference; its hours are lost"
            )
        self.account.add(
            self.stage,
            step=done.step,
            reason="resume",
            flops=max(0, missing),
            tokens=max(0, done.tokens - kept.tokens),
        )
        self.context.events.resume(self.spec.name, done.step)
        say(f"{self.spec.name}: resuming from step {done.step} of {self.spec.steps}")
        self.logged = self.charged = done
        self.pace = replace(self.pace, _marks=[])
        self.pace.mark(done.step, time.time())

    def _log(self, done: Progress, metrics: dict[str, float], records: list[StepRecord]) -> None:
        before, self.logged = self.logged, done
        self._charge(done, "log")
        self.pace.mark(done.step, time.time())
        measured = {**metrics, **self._utilisation(before, done), **self._costs()}
        self.context.events.append(
            "train",
            stage=self.spec.name,
            axes=self._axes(done),
            metrics=measured,
            details={
                "steps": [astuple(record) for record in records],
                "planned_steps": self.spec.steps,
            },
        )
        self.context.view.update()
        if self._bar is None:
            bar = progress_bar(self.spec.name, self.spec.steps, start=before.step)
            self._bar = self._stack.enter_context(bar)
        shown = {"loss": "train/loss", "tokens/s": "perf/tokens_per_second"}
        values = {name: metrics[key] for name, key in shown.items() if key in metrics}
        self._bar.update(done.step, values)

    def _metered(self, done: Progress, metrics: dict[str, float]) -> None:
        """Log what the meter has measured."""
        self.context.events.append(
            "evaluate", stage=self.spec.name, axes=self._axes(done), metrics=metrics
        )

    def _anomaly(self, anomaly: Anomaly, record: StepRecord) -> None:
        """Log an anomaly and the action taken."""
        self._note_guard(record.step, **asdict(anomaly), batch=record.batch, chain=record.chain)
        folder = self.context.folder.path
        limit = "" if anomaly.limit is None else f" (limit {anomaly.limit:.4g})"
        say(
            f"{self.spec.name}: {anomaly.kind} at step {record.step}: {anomaly.value:.4g}{limit}; "
            f"{anomaly.action}; show its documents: hpc-llm train rerun.stage={self.spec.name} "
            f"rerun.step={record.step} rerun.show=true run={folder.name} runs_dir={folder.parent}"
        )

    def _without_checkpoint(self, done: Progress) -> None:
        """Log a checkpoint skipped because the disk is full."""
        self._note_guard(done.step, kind="full_disk", action="skip")
        say(
            f"{self.spec.name}: disk full, checkpoint of step {done.step} skipped: "
            f"{self.spec.folder} (guards.full_disk=skip); "
            "free space there before the next checkpoint"
        )

    def _stalled(self, names: list[str]) -> None:
        """Record ranks that keep the others waiting; called from the watchdog's thread."""
        if self.context.ranks.is_first:
            log = self.context.folder.starts
            note_start(log, "end", code=EXIT_FAILED, why=f"stalled: {'; '.join(names)}")
            self._note_guard(self.charged.step, kind="stall", action="stop", ranks=names)

    def _straggling(self, names: list[str], step: int) -> None:
        """Log the slow ranks for which all others wait at every step."""
        self._note_guard(step, kind="straggler", action="none", ranks=names)
        for name in names:
            say(f"{self.spec.name}: {name}; all others wait for it, see hpc-llm preflight")

    def _note_guard(self, step: int, **details: Any) -> None:
        self.context.events.append(
            "guard", stage=self.spec.name, axes={"step": step}, metrics={}, details=details
        )

    def _utilisation(self, before: Progress, done: Progress) -> dict[str, float]:
        peak = self.account.hardware.peak_tflops.get(self.context.cfg.train.precision)
        seconds = done.seconds - before.seconds
        if peak is None or not seconds > 0:
            return {}
        return utilisation_metrics(
            seconds,
            peak * 1e12 * self.account.devices,
            exact=done.flops - before.flops,
            six_n=self.flops.six_n * (done.tokens - before.tokens),
            hardware=self._hardware(before, done),
        )

    def _costs(self) -> dict[str, float]:
        """Return the total spent, and the projected total from the measured speed."""
        account, hours = self.account, self.account.spent.device_hours
        known: dict[str, float | None] = {
            **account.costs(self.context.cfg.cluster.carbon_g_per_kwh)
        }
        rest = self.pace.rest()
        if rest is not None:
            at_end = hours + account.devices * rest.mid / 3600
            known["cost/hours_left"] = rest.mid / 3600
            known["cost/money_at_end"] = account.money(at_end)
            if not self._projected:
                self._project(rest, hours)
        return {name: float(value) for name, value in known.items() if value is not None}

    def _project(self, rest: Rest, hours: float) -> None:
        """Log the projected time and money once, and record it for comparison at the end."""
        self._projected = True
        account, stage_rest = self.account, self.pace.stage_rest()
        assert stage_rest is not None
        step = self.logged.step
        account.add(self.stage, step=step, reason="projection", projected_seconds=stage_rest.mid)
        ends = [hours + account.devices * seconds / 3600 for seconds in (rest.low, rest.high)]
        money = [account.money(end) for end in ends]
        cost = ""
        if None not in money:
            cost = f"; total cost {money[0]:.3g} to {money[1]:.3g} {account.hardware.currency}"
        say(
            f"{self.spec.name}: {self.pace.measured} steps measured, remaining training time "
            f"{duration(rest.mid)} ({duration(rest.low)} to {duration(rest.high)}){cost}"
        )

    def _axes(self, done: Progress) -> dict[str, Any]:
        hours = self.account.devices * done.seconds / 3600
        return {
            "step": done.step,
            "tokens": done.tokens,
            "bytes": round(done.tokens * self.spec.reader.bytes_per_token),
            "flops": done.flops,
            "pf_days": pf_days(done.flops),
            "gpu_hours": self.account.gpu_hours(hours),
            "wall_seconds": done.seconds,
            "money": self.account.money(hours),
        }
