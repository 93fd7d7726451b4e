"""Metrics of a task with their intervals, from the scores of its questions."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpc_llm.evaluation.bootstrap import SAMPLES, percentiles
from hpc_llm.evaluation.measures import Measure
from hpc_llm.evaluation.tasks.metrics import load_metric
from hpc_llm.evaluation.tasks.questions import Outcome, Question, Scored

__all__ = ["group_means", "item_line", "measure", "outcomes", "weights"]


TAIL = 0.025  # of a two-sided 95 % interval


def item_line(question: Question, nats: Sequence[float], cut: bool, metric: str) -> dict[str, Any]:
    """Return the line of a question in `TASK.jsonl`; `nats` are the scores of its requests."""
    count = len(question.choices)
    line = {
        "id": question.id,
        "groups": list(question.groups),
        "scores": [_or_null(value) for value in nats[:count]],
        "neutral": [_or_null(value) for value in nats[count:]] or None,
        "bytes": [len(choice.encode()) for choice in question.choices],
        "gold": question.gold,
        "cut": cut,
    }
    (outcome,) = outcomes(metric, [line])
    return line | {"prediction": outcome.prediction}


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else value


def outcomes(metric: str, lines: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """Return the outcome of a metric for each line of `TASK.jsonl`; NaN where a score is null."""
    function = load_metric(metric)
    return [
        function(Scored(**{key: line[key] for key in ("scores", "neutral", "bytes", "gold")}))
        if None not in (*line["scores"], *(line["neutral"] or ()))
        else Outcome(value=math.nan, prediction=None)
        for line in lines
    ]


def measure(
    values: Sequence[float], groups: Sequence[Sequence[str]], chance: float, seed: int
) -> Measure:
    """Return the mean of `values` over groups, with its bootstrap interval over items.

    `values` (items,) in [0, 1]; `groups[i]` are the groups of item i, from outer to inner; `chance`
    is the value of a guess. Items are drawn within their group (strata). Groups of one item are
    drawn from together: alone they would not vary. Items that all have 0, or all 1, never vary:
    the other bound is then that of Clopper and Pearson (1934). One item has no interval, nor
    has NaN.
    """
    found, shares = np.array(values, dtype=np.float64), weights(groups)
    low, high = None, None
    if len(found) > 1 and not np.isnan(found).any():
        random = np.random.default_rng(seed)
        draws = sum(
            shares[stratum] @ found[random.choice(stratum, (len(stratum), SAMPLES))]
            for stratum in _strata(groups)
        )
        low, high = map(_exact, percentiles(draws))
        beyond = TAIL ** (1 / len(found))
        low, high = (beyond if found.min() == 1 else low), (high if found.max() else 1 - beyond)
    return Measure(
        value=_exact(float(shares @ found)),
        low=low,
        high=high,
        n=len(found),
        unit="accuracy",
        better="higher",
        chance=_exact(chance),
    )


def _exact(value: float) -> float:
    """Round away binary noise, else 0.5 would lie outside an interval from 0.5000000000000001."""
    return round(value, 12)


def weights(groups: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the weight of each item in the mean over groups of groups, float64 (items,).

    An outer group has the mean of its inner groups: the paradigms of a phenomenon count alike,
    however many items they have. Weights sum to 1; without groups they are equal.
    """
    shares = np.ones(len(groups))
    depth = len(groups[0])
    for level in range(depth + 1):
        # below each group of this level: its distinct inner groups, at the last level its items
        inside: dict[tuple[str, ...], set[Any]] = defaultdict(set)
        for index, found in enumerate(groups):
            inside[tuple(found[:level])].add(found[level] if level < depth else index)
        shares /= [len(inside[tuple(found[:level])]) for found in groups]
    return shares


def _strata(groups: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Return the indices of the items of each group, in order of appearance."""
    members: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, found in enumerate(groups):
        members[tuple(found)].append(index)
    single = [indices[0] for indices in members.values() if len(indices) == 1]
    several = [indices for indices in members.values() if len(indices) > 1]
    return [np.array(indices) for indices in ([*several, single] if single else several)]


def group_means(
    values: Sequence[float], groups: Sequence[Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """Return mean and number of items of each group, by its names joined with a slash."""
    members: dict[str, list[float]] = defaultdict(list)
    for value, found in zip(values, groups, strict=True):
        for level in range(1, len(found) + 1):
            members["/".join(found[:level])].append(value)
    return {
        name: {"value": _exact(float(np.mean(found))), "n": len(found)}
        for name, found in members.items()
    }
