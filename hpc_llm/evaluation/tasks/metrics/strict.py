"""metric: strict: the share of records all of whose variants are right, such as both orders.

A model that knows nothing but keeps its choice in every order has 1 / choices.
"""

import numpy as np

from hpc_llm.evaluation.tasks.metrics.acc import outcome
from hpc_llm.evaluation.tasks.totals import Total

__all__ = ["TOTAL", "outcome"]

TOTAL = Total(gather=lambda rows: np.min(rows, axis=0))
