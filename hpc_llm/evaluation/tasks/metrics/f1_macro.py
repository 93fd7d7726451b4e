"""metric: f1_macro: mean over the classes of the F1 of each."""

import numpy as np

from hpc_llm.evaluation.tasks.totals import by_class, f1_of_each, of_classes

__all__ = ["TOTAL", "outcome"]

outcome = by_class


def _mean(confusion: np.ndarray) -> np.ndarray:
    """Return the mean F1 of classes that occur, as gold or predicted."""
    occurs = confusion.sum(axis=-1) + confusion.sum(axis=-2) > 0
    return f1_of_each(confusion).sum(axis=-1) / np.maximum(1, occurs.sum(axis=-1))


TOTAL = of_classes(_mean, "F1")
