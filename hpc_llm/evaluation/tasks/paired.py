"""A task at two points of a run: the change of its score, paired by question.

Both points answer the same questions, so what makes a question hard for both cancels: resamples
draw the same questions for both, and the exact test of McNemar (1947) looks only at the questions
that one of them answers correctly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpc_llm.evaluation.bootstrap import percentiles
from hpc_llm.evaluation.measures import Measure
from hpc_llm.evaluation.tasks.results import Estimate, outcomes, task_estimate
from hpc_llm.rundir import read_jsonl
from hpc_llm.settings.task import TaskSettings

__all__ = ["Change", "change_from", "lines_at", "mcnemar"]

Lines = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Change:
    """The change of a task's score from one point to another."""

    measure: Measure
    """Score after minus score before, with its paired interval."""
    gained: int
    """Questions that only the later point answers correctly."""
    lost: int
    """Questions that only the earlier point answers correctly."""
    p_value: float
    """Of McNemar's exact test, two-sided."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as written to `TASK.json`."""
        tested = {"gained": self.gained, "lost": self.lost, "mcnemar_p": self.p_value}
        return self.measure.as_dict() | tested


def lines_at(folder: Path, name: str) -> list[dict[str, Any]] | None:
    """Return the lines of `TASK.jsonl` of a point's folder; None: the task has none there."""
    path = folder / f"{name}.jsonl"
    return [*read_jsonl(path)] if path.is_file() else None


def change_from(before: Lines, after: Lines, task: TaskSettings, seed: int) -> Change | None:
    """Return the change of a task's measure; None if the points have different questions."""
    if [line["id"] for line in before] != [line["id"] for line in after]:
        return None
    old, new = (task_estimate(task, lines, seed) for lines in (before, after))
    gained, lost = _discordant(before, after, task.metric[0])
    return Change(
        measure=_difference(old, new), gained=gained, lost=lost, p_value=mcnemar(gained, lost)
    )


def _difference(old: Estimate, new: Estimate) -> Measure:
    low, high = None, None
    if old.draws is not None and new.draws is not None:
        low, high = percentiles(new.draws - old.draws)
    return Measure(
        value=new.measure.value - old.measure.value,
        low=low,
        high=high,
        n=new.measure.n,
        unit=f"change of {new.measure.unit}",
        better=new.measure.better,
    )


def _discordant(before: Lines, after: Lines, metric: str) -> tuple[int, int]:
    """Return how many questions became right and wrong; those with a shared point count as wrong.

    Of generated answers and whole texts, right are those with the value 1.
    """
    old, new = (
        np.array([outcome.value == 1 for outcome in outcomes(metric, lines)])
        for lines in (before, after)
    )
    return int((new & ~old).sum()), int((old & ~new).sum())


def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: both counts are equally likely."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
