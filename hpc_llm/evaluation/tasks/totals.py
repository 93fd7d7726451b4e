"""How the outcomes of questions become one number with an interval: means, ratios, class metrics.

The parts of outcomes (`Outcome.parts`) are added over the questions of a unit and averaged over
units; a function of these averages is the value. It is the same for a resample of units, so that
every metric has a bootstrap interval. No torch here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hpc_llm.evaluation.tasks.questions import Outcome, Scored, by_highest

__all__ = ["MEAN", "Total", "Units", "by_class", "f1_of_each", "guessed_choice", "of_classes"]

Units = Sequence[Sequence[Scored]]


def guessed_choice(units: Units) -> float | None:
    """Return the mean of 1 / choices; None for generated answers, which nobody can guess."""
    counts = [len(scored.scores) for unit in units for scored in unit]
    return None if min(counts) < 2 else float(np.mean([1 / count for count in counts]))


@dataclass(frozen=True, kw_only=True)
class Total:
    """How a metric combines the outcomes of questions."""

    unit: str = "accuracy"
    """Unit of the value, as on the axis of a plot."""
    better: str = "higher"
    """lower | higher."""
    of: Callable[[np.ndarray], np.ndarray] | None = None
    """Value (...) of averaged parts (..., parts); None: a mean of values in [0, 1]."""
    gather: Callable[[np.ndarray], np.ndarray] = lambda rows: rows.mean(axis=0)
    """Parts of a unit (parts,) from those of its questions (questions, parts)."""
    chance: Callable[[Units], float | None] = guessed_choice
    """Value of a random guess; None: there is none."""


MEAN = Total()


def by_class(scored: Scored) -> Outcome:
    """Predict argmax S(c), with the confusion matrix of one question as parts.

    Parts are the flattened matrix (gold, prediction) of zeros and a one. Raises `ValueError` for a
    question without a correct choice.
    """
    if scored.gold < 0:
        raise ValueError("no choice is correct")
    found = by_highest(scored.scores, scored.gold)
    classes = len(scored.scores)
    matrix = np.zeros((classes, classes))
    matrix[scored.gold, found.prediction] = 1
    return Outcome(
        value=found.value, prediction=found.prediction, parts=tuple(matrix.ravel().tolist())
    )


def of_classes(function: Callable[[np.ndarray], np.ndarray], unit: str) -> Total:
    """Return the total of a function of confusion matrices (..., classes, classes) -> (...).

    A guess takes each class equally often, whatever the gold class.
    """

    def of(parts: np.ndarray) -> np.ndarray:
        classes = round(parts.shape[-1] ** 0.5)
        return function(parts.reshape(*parts.shape[:-1], classes, classes))

    def chance(units: Units) -> float:
        found = [scored for unit in units for scored in unit]
        classes = len(found[0].scores)
        gold = np.bincount([scored.gold for scored in found], minlength=classes) / len(found)
        return float(function(np.outer(gold, np.full(classes, 1 / classes))))

    return Total(unit=unit, of=of, gather=lambda rows: rows.sum(axis=0), chance=chance)


def f1_of_each(confusion: np.ndarray) -> np.ndarray:
    """Return `2 TP / (gold + predicted)` of each class (..., classes); 0 for one without either."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    both = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return 2 * right / np.where(both > 0, both, 1.0)
