"""Forgetting: scores or bits per byte on other text than the target, before and after."""

import numpy as np
from numpy.typing import ArrayLike

from hpc_llm.errors import UserError
from hpc_llm.evaluation.bootstrap import (
    SAMPLES,
    DocumentLosses,
    Interval,
    bits_per_byte,
    draw_documents,
    percentiles,
    resampled_bpb,
)

__all__ = ["delta_bpb", "relative_drop"]


def relative_drop(before: ArrayLike, after: ArrayLike) -> float:
    """Return FG = mean (R_before - R_after) / R_before over tasks and steps.

    Luo et al. (arXiv 2308.08747). `before` (tasks,) and `after` (tasks,) or (steps, tasks) are
    scores for which higher is better; the result is a fraction, negative where the model improved.
    Raises `UserError` when the shapes differ or a score before is not above 0.
    """
    first, later = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if first.ndim != 1 or later.shape[-1:] != first.shape:
        raise UserError(
            "forgetting",
            None,
            f"scores have shape {first.shape} before and {later.shape} after",
            "provide one score for each task before and after",
        )
    if not np.all(first > 0):
        raise UserError(
            "forgetting", None, f"scores before are {first.tolist()}; each must be above 0"
        )
    return float(np.mean((first - later) / first))


def delta_bpb(before: DocumentLosses, after: DocumentLosses, seed: int) -> Interval:
    """Return the rise of bits per byte on the same documents, with a paired 95 % interval.

    Above 0: the model forgot. The two may be of different tokenizers. Raises `UserError` when
    the documents are not the same.
    """
    counts = before.byte_counts
    if not np.array_equal(counts, after.byte_counts):
        raise UserError(
            "forgetting",
            None,
            f"{len(counts)} documents before and {len(after.byte_counts)} after are not the same",
            "evaluate both models on the same documents",
        )
    difference = after.nll - before.nll
    draws = draw_documents(counts, SAMPLES, seed)
    low, high = percentiles(resampled_bpb(difference, counts, draws))
    return Interval(bits_per_byte(difference, counts), low, high)
