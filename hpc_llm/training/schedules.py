"""Learning-rate schedules over the completed fraction of a stage, and when a stage ends.

The fraction is measured in steps, tokens or model FLOPs, whichever limit of the stage is nearest.
All three are counters in the checkpoint, so annealing ends with the stage's budget however often it
was interrupted, and a step has the same learning rate in a resumed and an uninterrupted run.
"""

import math
from dataclasses import dataclass

from hpc_llm.settings import ScheduleSettings
from hpc_llm.training.progress import Progress

__all__ = ["StageLength", "relative_rate"]


def relative_rate(schedule: ScheduleSettings, fraction: float) -> float:
    """Return the learning rate relative to its peak, after `fraction` (0 to 1) of the stage.

    Linear warm-up over the first w = `warmup_fraction` of the stage, then

    - constant: 1;
    - linear, cosine: linear or half-cosine decay to f = `final_fraction` at the end of the stage
      (Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5, without restarts);
    - inverse_sqrt: sqrt(w / fraction) (Vaswani et al. 2017, arXiv 1706.03762, equation 3);
    - wsd (warm-up, stable, decay): 1, then decay to f over the last `decay_fraction` of the stage
      (Hu et al. 2024, arXiv 2404.06395) with the shape that `decay` names, see `_decayed`.
    """
    warmup = schedule.warmup_fraction
    if fraction < warmup:
        return fraction / warmup
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "inverse_sqrt":
        return math.sqrt(warmup / fraction)
    begin, form = warmup, schedule.name
    if schedule.name == "wsd":
        begin, form = 1 - schedule.decay_fraction, schedule.decay
    if fraction <= begin:
        return 1.0
    return _decayed(form, min(1.0, (fraction - begin) / (1 - begin)), schedule.final_fraction)


def _decayed(form: str, x: float, final: float) -> float:
    """Return the relative learning rate after `x` (0 to 1) of a decay from 1 to `final`.

    sqrt is 1 - sqrt(x) (Hägele et al. 2024, arXiv 2405.18392); exponential halves the learning rate
    at equal intervals, as in Hu et al. 2024.
    """
    if form == "exponential":
        return final**x
    shapes = {
        "linear": 1 - x,
        "cosine": 0.5 * (1 + math.cos(math.pi * x)),
        "sqrt": 1 - math.sqrt(x),
    }
    return final + (1 - final) * shapes[form]


@dataclass(frozen=True, kw_only=True)
class StageLength:
    """Length of a stage: it ends at the first step boundary where any limit is reached."""

    steps: int
    tokens: int | None = None
    """Tokens of text, padding excluded."""
    flops: float | None = None
    """Model FLOPs."""

    def fraction(self, progress: Progress) -> float:
        """Return the completed fraction by the nearest limit; above 1 after the end."""
        shares = [progress.step / self.steps]
        if self.tokens is not None:
            shares.append(progress.tokens / self.tokens)
        if self.flops is not None:
            shares.append(progress.flops / self.flops)
        return max(shares)

    def ended(self, progress: Progress) -> bool:
        """Return whether the stage is over."""
        return self.fraction(progress) >= 1

    def middle(self, before: Progress, after: Progress) -> float:
        """Return the completed fraction at the midpoint of the step between two boundaries.

        A step uses the learning rate of its midpoint, so it is 0 neither at the first step of a
        warm-up nor at the last step of a decay to 0.
        """
        return (self.fraction(before) + min(1.0, self.fraction(after))) / 2

    def expected_steps(self, tokens_per_step: float, flops_per_step: float) -> int:
        """Return the number of steps: exact if only `steps` limits it, else an estimate."""
        counts = [self.steps]
        if self.tokens is not None:
            counts.append(math.ceil(self.tokens / tokens_per_step))
        if self.flops is not None:
            counts.append(math.ceil(self.flops / flops_per_step))
        return max(1, min(counts))
