"""Counters of a training stage: updated at every step, stored in every checkpoint."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpc_llm.training.data.rows import Counts
    from hpc_llm.training.forensics import StepRecord

__all__ = ["COUNTERS", "LogWindow", "Progress"]

COUNTERS = ("seconds", "tokens", "flops", "positions")  # a log line reports their increase


@dataclass(kw_only=True)
class LogWindow:
    """The steps since the last log line, and the counters at that line."""

    records: list[Any]
    """Fields of `StepRecord`."""
    loss_sum: float
    """Nats of the applied steps."""
    labels: float
    seconds: float
    tokens: int
    flops: int
    positions: int


@dataclass
class Progress:
    """Counters of a stage at the end of a step, over all ranks; exact counts are integers."""

    step: int = 0
    tokens: int = 0
    """Tokens read, excluding padding."""
    label_tokens: int = 0
    squared_lengths: int = 0
    """Sum of squared document lengths: the cost of attention within documents."""
    positions: int = 0
    """Tokens, including padding."""
    squared_widths: int = 0
    """Sum of squared sequence lengths: the cost of attention over whole sequences."""
    flops: int = 0
    seconds: float = 0.0
    """Wall time of the steps."""
    loss: float | None = None
    """Mean nats per label token since the last log line before the step."""
    batch: int = 0
    """Index of the next batch: completed steps plus batches skipped by a rollback."""
    troubles: int = 0
    """Anomalies: steps skipped by a guard, and rollbacks."""
    skipped: int = 0
    """Steps skipped while fp16's loss scale was lowered."""
    chain: str = ""
    """Fingerprint of all batches so far."""
    recent: list[float] = field(default_factory=list)
    """Recent losses, the baseline for spike detection."""
    window: LogWindow | None = None
    """In a checkpoint: the steps before it that the next log line covers."""

    def after(
        self,
        record: "StepRecord",
        counts: "Counts",
        recent: list[float],
        flops: int,
        seconds: float,
    ) -> "Progress":
        """Return the counters after one more step; `recent` are the losses with that of it."""
        return replace(
            self,
            step=record.step,
            batch=record.batch + 1,
            chain=record.chain,
            recent=recent,
            tokens=self.tokens + counts.tokens,
            label_tokens=self.label_tokens + counts.label_tokens,
            squared_lengths=self.squared_lengths + counts.squared_lengths,
            positions=self.positions + counts.positions,
            squared_widths=self.squared_widths + counts.squared_widths,
            flops=self.flops + flops,
            seconds=self.seconds + seconds,
        )
