"""metric: f1: F1 of the second of two classes, such as the correct answers of MuSeRC (F1a)."""

import numpy as np

from hpc_llm.evaluation.tasks.totals import by_class, f1_of_each, of_classes

__all__ = ["TOTAL", "outcome"]

outcome = by_class


def _second(confusion: np.ndarray) -> np.ndarray:
    return f1_of_each(confusion)[..., 1]


TOTAL = of_classes(_second, "F1")
