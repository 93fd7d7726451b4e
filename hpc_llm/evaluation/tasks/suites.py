"""Suites: the mean over those of its tasks that were evaluated, such as Russian SuperGLUE."""

import math
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from hpc_llm.evaluation.measures import Measure

__all__ = ["suite_measures"]


def suite_measures(
    found: Mapping[str, Measure], suites: Mapping[str, str | None]
) -> dict[str, Measure]:
    """Return the mean of the measures of each suite with two or more tasks, by its name.

    `found` are measures by task and `suites` the suite of each task. `n` is the number of tasks.
    Tasks have different items, so the variances of their means add: half the width of the interval
    is the root of the sum of squared half-widths, over n.
    """
    members: dict[str, list[Measure]] = defaultdict(list)
    for name, measure in found.items():
        if (suite := suites[name]) is not None:
            members[suite].append(measure)
    return {suite: _mean(ones) for suite, ones in members.items() if len(ones) > 1}


def _mean(ones: list[Measure]) -> Measure:
    value = float(np.mean([one.value for one in ones]))
    below = [one.value - one.low for one in ones if one.low is not None]
    above = [one.high - one.value for one in ones if one.high is not None]
    low, high = None, None
    if len(below) == len(above) == len(ones) and math.isfinite(value):
        low, high = value - _root(below) / len(ones), value + _root(above) / len(ones)
    levels = [one.chance for one in ones if one.chance is not None]
    return Measure(
        value=value,
        low=low,
        high=high,
        n=len(ones),
        unit="mean of tasks",
        better="higher",
        chance=float(np.mean(levels)) if len(levels) == len(ones) else None,
    )


def _root(widths: list[float]) -> float:
    return float(np.linalg.norm(widths))
