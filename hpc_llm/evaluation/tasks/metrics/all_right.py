"""metric: all_right: the share of questions all of whose answers are judged right.

The exact match of MultiRC (Khashabi et al. 2018) and MuSeRC; answers are judged one by one.
"""

import numpy as np

from hpc_llm.evaluation.tasks.metrics.acc import outcome
from hpc_llm.evaluation.tasks.totals import Total, Units

__all__ = ["TOTAL", "outcome"]


def _guess(units: Units) -> float:
    return float(np.mean([np.prod([1 / len(one.scores) for one in unit]) for unit in units]))


TOTAL = Total(gather=lambda rows: np.min(rows, axis=0), chance=_guess)
