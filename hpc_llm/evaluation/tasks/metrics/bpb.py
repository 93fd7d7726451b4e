"""metric: bpb: bits per byte of the texts that are scored: whole texts, or gold answers."""

import math

import numpy as np

from hpc_llm.evaluation.tasks.questions import Outcome, Scored
from hpc_llm.evaluation.tasks.totals import Total, Units

__all__ = ["TOTAL", "outcome"]


def outcome(scored: Scored) -> Outcome:
    """Return the bits per byte of the correct text; parts: its bits and its bytes."""
    bits = -scored.scores[scored.gold] / math.log(2)
    size = scored.bytes[scored.gold]
    return Outcome(value=bits / size, prediction=None, parts=(bits, float(size)))


def _ratio(parts: np.ndarray) -> np.ndarray:
    return parts[..., 0] / parts[..., 1]


def _no_guess(units: Units) -> None:
    return None


TOTAL = Total(
    unit="bits per byte",
    better="lower",
    of=_ratio,
    gather=lambda rows: rows.sum(axis=0),
    chance=_no_guess,
)
