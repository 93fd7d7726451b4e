"""metric: position_gap: accuracy where the first choice is correct minus that of the second.

For tasks that ask each question in both orders: 0 for a model that ignores positions, 1 for one
that always takes the first choice, -1 for the second.
"""

import numpy as np

from hpc_llm.evaluation.tasks.totals import by_class, of_classes

__all__ = ["TOTAL", "outcome"]

outcome = by_class


def _gap(confusion: np.ndarray) -> np.ndarray:
    gold = np.maximum(confusion.sum(axis=-1), 1e-12)
    return confusion[..., 0, 0] / gold[..., 0] - confusion[..., 1, 1] / gold[..., 1]


TOTAL = of_classes(_gap, "difference of accuracy")
