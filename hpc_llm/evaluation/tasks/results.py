"""Metrics of a task with their intervals, from the scores of its questions."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpc_llm.evaluation.bootstrap import SAMPLES, percentiles
from hpc_llm.evaluation.measures import Measure
from hpc_llm.evaluation.tasks.metrics import load_metric, load_total
from hpc_llm.evaluation.tasks.questions import Outcome, Question, Scored
from hpc_llm.evaluation.tasks.totals import MEAN, Total
from hpc_llm.settings.task import TaskSettings

__all__ = [
    "Estimate",
    "estimate",
    "group_means",
    "item_line",
    "mean_of",
    "measure",
    "outcomes",
    "task_estimate",
    "weights",
]

TAIL = 0.025  # of a two-sided 95 % interval


def item_line(
    question: Question, nats: Sequence[float], cut: bool, metric: str, answer: str | None = None
) -> dict[str, Any]:
    """Return the line of a question in `TASK.jsonl`.

    `nats` are the scores of its requests; `answer` is the generated one.
    """
    count = len(question.choices)
    line: dict[str, Any] = {
        "id": question.id,
        "groups": list(question.groups),
        "scores": [_or_null(value) for value in nats[:count]],
        "neutral": [_or_null(value) for value in nats[count:]] or None,
        "bytes": [len(choice.encode()) for choice in question.choices],
        "gold": question.gold,
        "cut": cut,
    }
    if question.submission_id is not None:
        line["submission_id"] = question.submission_id
    if question.shots:
        line["shots"] = len(question.shots)
    if question.unit is not None:
        line["unit"] = question.unit
    if question.answers:
        texts = question.texts
        if texts and None not in line["scores"]:
            answer = texts[line["scores"].index(max(line["scores"]))]
        line |= {"answer": answer, "answers": list(question.answers), "texts": list(texts)}
    (outcome,) = outcomes(metric, [line])
    if question.submission_id is not None:
        line["output"] = _output(question, outcome.prediction, line.get("answer"))
    return line | {"prediction": outcome.prediction}


def _output(question: Question, prediction: int | None, answer: str | None) -> str:
    """Return the text that a benchmark with hidden answers compares: an answer or a choice."""
    if question.generates or question.texts:
        return answer or ""
    return "" if prediction is None else question.choices[prediction].strip()


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else value


def scored_of(line: Mapping[str, Any]) -> Scored:
    """Return the scores that a line of `TASK.jsonl` holds."""
    given = ("scores", "neutral", "bytes", "gold", "answer", "answers", "texts")
    return Scored(**{key: line[key] for key in given if key in line})


def outcomes(metric: str, lines: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """Return the outcome of a metric for each line of `TASK.jsonl`; NaN where a score is null."""
    function = load_metric(metric)
    return [
        function(scored_of(line))
        if None not in (*line["scores"], *(line["neutral"] or ()))
        else Outcome(value=math.nan, prediction=None)
        for line in lines
    ]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric of a task with its resamples; equal seeds draw the same units of a task."""

    measure: Measure
    draws: np.ndarray | None
    """Its value in each resample, float64 (samples,); None: there is no interval."""


def estimate(metric: str, lines: Sequence[Mapping[str, Any]], seed: int) -> Estimate:
    """Return a metric of the lines of `TASK.jsonl`."""
    total, found = load_total(metric), outcomes(metric, lines)
    members = list(_units(lines).values())
    failed = [outcome.prediction is None and math.isnan(outcome.value) for outcome in found]
    parts = [outcome.parts or (outcome.value,) for outcome in found]
    if any(failed):
        parts = [(math.nan,)] * len(found)
    rows = [total.gather(np.array([parts[i] for i in unit], dtype=np.float64)) for unit in members]
    groups = [lines[unit[0]]["groups"] for unit in members]
    chance = total.chance([[scored_of(lines[i]) for i in unit] for unit in members])
    return estimated(np.array(rows), groups, chance, seed, MEAN if any(failed) else total)


def task_estimate(task: TaskSettings, lines: Sequence[Mapping[str, Any]], seed: int) -> Estimate:
    """Return the measure of a task: its first metric, or the mean of `mean_of`."""
    if not task.mean_of:
        return estimate(task.metric[0], lines, seed)
    return mean_of([estimate(metric, lines, seed) for metric in task.mean_of])


def _units(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Return the indices of the questions of each unit, in order of appearance."""
    units: dict[str, list[int]] = defaultdict(list)
    for index, line in enumerate(lines):
        units[line.get("unit", line["id"])].append(index)
    return units


def mean_of(found: Sequence[Estimate]) -> Estimate:
    """Return the mean of metrics of one task; its resamples are those of each."""
    ones = [each.measure for each in found]
    levels = [one.chance for one in ones]
    known = [each.draws for each in found if each.draws is not None]
    draws = np.mean(known, axis=0) if len(known) == len(found) else None
    low, high = (None, None) if draws is None else map(_exact, percentiles(draws))
    measured = Measure(
        value=_exact(float(np.mean([one.value for one in ones]))),
        low=low,
        high=high,
        n=ones[0].n,
        unit="mean of metrics",
        better=ones[0].better,
        chance=None if None in levels else _exact(float(np.mean([*filter(None, levels)]))),
    )
    return Estimate(measure=measured, draws=draws)


def measure(
    values: Sequence[float], groups: Sequence[Sequence[str]], chance: float | None, seed: int
) -> Measure:
    """Return the mean of `values` over groups; arguments and interval as in `estimated`.

    `values` (items,) are in [0, 1].
    """
    rows = np.array(values, dtype=np.float64)[:, None]
    return estimated(rows, groups, chance, seed, MEAN).measure


def estimated(
    rows: np.ndarray,
    groups: Sequence[Sequence[str]],
    chance: float | None,
    seed: int,
    total: Total,
) -> Estimate:
    """Return the total of `rows` (units, parts), averaged over groups, with its interval.

    `groups[i]` are the groups of unit i, from outer to inner; `chance` is the value of a guess.
    Units are drawn within their group (strata). Groups of one unit are drawn from together: alone
    they would not vary. Values of a mean that are all 0, or all 1, never vary: the other bound is
    then that of Clopper and Pearson (1934). One unit has no interval, nor has NaN.
    """
    shares = weights(groups)
    low, high, draws = None, None, None
    if len(rows) > 1 and not np.isnan(rows).any():
        draws = _of(total, _resampled(rows, groups, shares, seed))
        low, high = map(_exact, percentiles(draws))
        if total.of is None:
            beyond = TAIL ** (1 / len(rows))
            low, high = (beyond if rows.min() == 1 else low), (high if rows.max() else 1 - beyond)
    measured = Measure(
        value=_exact(float(_of(total, shares @ rows))),
        low=low,
        high=high,
        n=len(rows),
        unit=total.unit,
        better=total.better,
        chance=None if chance is None else _exact(chance),
    )
    return Estimate(measure=measured, draws=draws)


def _of(total: Total, parts: np.ndarray) -> np.ndarray:
    return parts[..., 0] if total.of is None else total.of(parts)


def _resampled(
    rows: np.ndarray, groups: Sequence[Sequence[str]], shares: np.ndarray, seed: int
) -> np.ndarray:
    """Return the averages of resampled units, float64 (samples, parts)."""
    random = np.random.default_rng(seed)
    found = np.zeros((SAMPLES, rows.shape[1]))
    for stratum in _strata(groups):
        drawn = random.choice(stratum, (len(stratum), SAMPLES))
        for part in range(rows.shape[1]):
            found[:, part] += shares[stratum] @ rows[drawn, part]
    return found


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
