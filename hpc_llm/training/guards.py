"""Guards: detect anomalies in a step before its update is applied.

Every comparison `nan > x` is False, so finiteness is checked first and explicitly. A spike is a
loss far above its recent values by robust statistics: the median, and the median absolute
deviation scaled by 1.4826 to a standard deviation (Hampel 1974); both ignore NaN and infinity. All
ranks judge the same global loss over the same history, so no communication is needed.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from hpc_llm.errors import Diverged
from hpc_llm.settings import GuardSettings

__all__ = ["Anomaly", "diverged", "judge_gradient", "judge_loss", "recent_losses", "spike_limit"]

LEAST_HISTORY = 20  # losses needed before spikes are detected
NORMAL = 1.4826  # a standard deviation in median absolute deviations, for a normal distribution
SMALLEST_SPREAD = 0.01  # of the median: after a flat history a small ripple is not a spike


@dataclass(frozen=True, kw_only=True)
class Anomaly:
    """An anomaly in a step and the action that the settings prescribe."""

    kind: str
    """not_finite | spike | zero_gradient."""
    action: str
    """stop | skip | rollback."""
    value: float
    """The loss (nats per label token), or the gradient norm."""
    limit: float | None = None
    """The threshold it exceeded."""


def recent_losses(history: Sequence[float], loss: float, window: int) -> list[float]:
    """Return the history with `loss` appended; NaN and infinite losses are not added."""
    return [*history, loss][-window:] if math.isfinite(loss) else list(history)


def spike_limit(history: Sequence[float], deviations: float) -> float | None:
    """Return the loss above which a step is a spike; None while the history is too short."""
    known = [loss for loss in history if math.isfinite(loss)]
    if len(known) < LEAST_HISTORY:
        return None
    middle = statistics.median(known)
    spread = NORMAL * statistics.median(abs(loss - middle) for loss in known)
    return middle + deviations * max(spread, SMALLEST_SPREAD * abs(middle))


def judge_loss(guards: GuardSettings, history: Sequence[float], loss: float) -> Anomaly | None:
    """Judge the global loss of a step (nats per label token), before its update is applied."""
    if not math.isfinite(loss):
        return Anomaly(kind="not_finite", action=guards.not_finite, value=loss)
    limit = spike_limit(history, guards.spike_deviations)
    if limit is not None and loss > limit:
        return Anomaly(kind="spike", action=guards.spike, value=loss, limit=limit)
    return None


def judge_gradient(guards: GuardSettings, norm: float | None, applied: bool) -> Anomaly | None:
    """Judge the global gradient norm; `applied` is False if the update was skipped for it."""
    if not applied or (norm is not None and not math.isfinite(norm)):
        value = math.nan if norm is None else norm
        return Anomaly(kind="not_finite", action=guards.not_finite, value=value)
    if norm == 0.0:
        return Anomaly(kind="zero_gradient", action=guards.zero_gradient, value=0.0)
    return None


def diverged(
    anomaly: Anomaly, guards: GuardSettings, *, stage: str, step: int, count: int, peak_rate: float
) -> Diverged:
    """Return the error that ends `stage` at `step`, after `count` anomalies."""
    where = f"train/{stage}: step {step}"
    if anomaly.kind == "not_finite":
        other = f" ({guards.most_skips} skips were tried)"
        if guards.not_finite == "stop":
            other = ", or use guards.not_finite=skip"
        return Diverged(
            f"{where}: the loss or the gradient is NaN or infinite; use a smaller "
            f"stages.{stage}.learning_rate (it was {peak_rate:g}) with "
            f"checkpoint.changed=restart{other}"
        )
    what = f"the loss {anomaly.value:.4g} is a spike (limit {anomaly.limit or 0:.4g})"
    if anomaly.kind == "zero_gradient":
        what = "the gradient is zero, nothing is trained"
    return Diverged(
        f"{where}: {what}; {count} of at most guards.most_skips={guards.most_skips} "
        f"anomalies; guards.{anomaly.kind}=skip continues"
    )
