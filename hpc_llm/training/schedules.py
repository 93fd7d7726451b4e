"""Learning-rate schedules: the rate at a step, relative to its peak."""

import math

from hpc_llm.settings import ScheduleSettings

__all__ = ["relative_rate"]


def relative_rate(schedule: ScheduleSettings, step: int, steps: int) -> float:
    """Return the relative rate of `step` (counted from 0) in a stage of `steps`.

    Linear warm-up to 1, then constant, linear or half a cosine down to `final_fraction`
    (Loshchilov & Hutter 2017, equation 5, without restarts).
    """
    warmup = round(schedule.warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    if schedule.name == "constant":
        return 1.0
    linear = schedule.name == "linear"
    fall = 1 - progress if linear else 0.5 * (1 + math.cos(math.pi * progress))
    return schedule.final_fraction + (1 - schedule.final_fraction) * fall
