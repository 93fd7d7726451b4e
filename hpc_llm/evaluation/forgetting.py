"""What the model forgot: scores or bits per byte on the source language, before and after."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from hpc_llm.errors import UserError
from hpc_llm.evaluation.bootstrap import (
    SAMPLES,
    Interval,
    bits_per_byte,
    draw_documents,
    percentiles,
    resampled_bpb,
)

if TYPE_CHECKING:
    from hpc_llm.evaluation.bits_per_byte import Bpb

__all__ = ["delta_bpb", "relative_drop"]


def relative_drop(before: ArrayLike, after: ArrayLike) -> float:
    """Return FG = mean (R_before - R_after) / R_before over tasks and steps.

    Luo et al. (arXiv 2308.08747). `before` (tasks,) and `after` (tasks,) or (steps, tasks) are
    scores of which more is better; the result is a fraction, negative where the model gained.
    Raises `UserError` when the shapes differ or a score before is not above 0.
    """
    first, later = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if first.ndim != 1 or later.shape[-1:] != first.shape:
        raise UserError(
            f"forgetting: scores of shape {first.shape} before and {later.shape} after; "
            "give one score a task before and after"
        )
    if not np.all(first > 0):
        raise UserError(f"forgetting: scores before are {first.tolist()}; each must be above 0")
    return float(np.mean((first - later) / first))


def delta_bpb(before: "Bpb", after: "Bpb", seed: int) -> Interval:
    """Return by how much bits per byte rose on the same documents, with a paired interval.

    Above 0: the model forgot. Raises `UserError` when the documents are not the same.
    """
    counts = before.byte_counts
    if not np.array_equal(counts, after.byte_counts):
        raise UserError("forgetting: the documents before and after differ; measure the same ones")
    difference = after.nll - before.nll
    draws = draw_documents(counts, SAMPLES, seed)
    low, high = percentiles(resampled_bpb(difference, counts, draws))
    return Interval(bits_per_byte(difference, counts), low, high)
