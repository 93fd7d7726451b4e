"""Learning-rate schedules over the share of a stage that is done, and when a stage is over.

The share runs over steps, tokens or model FLOPs, whichever limit of the stage is nearest. All three
are counters of the checkpoint, so the annealing ends with the stage's budget however often the
stage was interrupted, and a step has the same rate whether it was reached at once or not.
"""

import math
from dataclasses import dataclass

from hpc_llm.settings import ScheduleSettings
from hpc_llm.training.progress import Progress

__all__ = ["StageLength", "relative_rate"]


def relative_rate(schedule: ScheduleSettings, fraction: float) -> float:
    """Return the rate, relative to its peak, where `fraction` (0 to 1) of the stage is done.

    With w = `warmup_fraction` the rate rises linearly to 1 at w, and then is

    - constant: 1;
    - linear, cosine: a fall to f = `final_fraction` at the end, in a line or by half a cosine
      (Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5, without restarts);
    - inverse_sqrt: sqrt(w / fraction) (Vaswani et al. 2017, arXiv 1706.03762, equation 3);
    - wsd: 1, and in the last `decay_fraction` of the stage a fall to f (warm-up, stable, decay; Hu
      et al. 2024, arXiv 2404.06395) in the form that `decay` names, see `_fall`.
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
    return _fall(form, min(1.0, (fraction - begin) / (1 - begin)), schedule.final_fraction)


def _fall(form: str, x: float, final: float) -> float:
    """Return the rate where `x` (0 to 1) of a fall from 1 to `final` is done.

    sqrt is 1 - sqrt(x) (Hägele et al. 2024, arXiv 2405.18392); exponential halves the rate in
    equal times, as Hu et al. 2024 do.
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
    """How long a stage is: it ends at the first step boundary at which one limit is reached."""

    steps: int
    tokens: int | None = None
    """Tokens of text, padding excluded."""
    flops: float | None = None
    """Model FLOPs."""

    def fraction(self, progress: Progress) -> float:
        """Return the share that is done, by the limit that is nearest; above 1 behind the end."""
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
        """Return the share that is done in the middle of the step between two boundaries.

        A step takes the rate of its middle: neither the first of a warm-up nor the last of a
        fall to 0 has rate 0.
        """
        return (self.fraction(before) + min(1.0, self.fraction(after))) / 2

    def expected_steps(self, tokens_per_step: float, flops_per_step: float) -> int:
        """Return the number of steps, exact where only `steps` limits it, an estimate else."""
        counts = [self.steps]
        if self.tokens is not None:
            counts.append(math.ceil(self.tokens / tokens_per_step))
        if self.flops is not None:
            counts.append(math.ceil(self.flops / flops_per_step))
        return max(1, min(counts))
