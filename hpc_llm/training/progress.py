"""Counters of a training stage: what a step adds to, and what a checkpoint stores of them."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["COUNTERS", "LogWindow", "Progress"]

COUNTERS = ("seconds", "tokens", "flops", "positions")  # that a log line tells the growth of


@dataclass(kw_only=True)
class LogWindow:
    """The steps since the last log line, and the counters there."""

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
    """Counters of a stage, at the end of a step, over all ranks; integers where they count."""

    step: int = 0
    tokens: int = 0
    """Tokens read, padding left out."""
    label_tokens: int = 0
    squared_lengths: int = 0
    """Sum of squared document lengths: what attention costs."""
    positions: int = 0
    """Tokens and padding."""
    squared_widths: int = 0
    """Sum of squared row lengths: what attention took."""
    flops: int = 0
    seconds: float = 0.0
    """Wall time of the steps."""
    loss: float | None = None
    """Mean nats per label token since the last log line before the step."""
    batch: int = 0
    """Number of the next batch: the steps done, and the batches that a rollback left out."""
    troubles: int = 0
    """Steps that a guard left out, and rollbacks."""
    skipped: int = 0
    """Steps that were left out to find a loss scale."""
    chain: str = ""
    """Fingerprint of all batches so far."""
    recent: list[float] = field(default_factory=list)
    """Losses by which the next one is judged."""
    window: LogWindow | None = None
    """In a checkpoint: what the next log line tells of the steps before it."""
