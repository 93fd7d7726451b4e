"""metric: mcc: Matthews correlation coefficient of the classes, here of any number (Gorodkin 2004).

0 for a guess and for a model that always gives the same class, 1 if all are right.
"""

import numpy as np

from hpc_llm.evaluation.tasks.totals import by_class, of_classes

__all__ = ["TOTAL", "outcome"]

outcome = by_class


def _mcc(confusion: np.ndarray) -> np.ndarray:
    """Return `(c s - t.p) / sqrt((s^2 - p.p)(s^2 - t.t))`; 0 if the root is.

    `confusion` (..., classes, classes) of (gold, prediction); c: correct, s: all, t and p: how
    often a class is gold and predicted.
    """
    gold, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    correct, total = np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1))
    above = correct * total - (gold * predicted).sum(axis=-1)
    spread = (total**2 - (predicted**2).sum(axis=-1)) * (total**2 - (gold**2).sum(axis=-1))
    defined = spread > 1e-12 * total**4
    return np.where(defined, above / np.sqrt(np.where(defined, spread, 1.0)), 0.0)


TOTAL = of_classes(_mcc, "Matthews correlation")
