"""Means over training seeds, with intervals over seeds and documents.

Runs that differ only in their seed are evaluated on the same documents. Each resample draws seeds
and, independently of them, documents, both with replacement (the pigeonhole bootstrap of Owen 2007,
arXiv 0711.4009): its interval covers another draw of test documents and another training run. With
one seed it covers the documents only, and with few seeds it is too narrow.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpc_llm.errors import UserError
from hpc_llm.evaluation.bootstrap import (
    SAMPLES,
    DocumentLosses,
    Interval,
    bits_per_byte,
    draw_documents,
    percentiles,
)

__all__ = ["mean_bpb", "mean_difference", "mean_measure"]

Z = 1.96  # half a 95 % interval in standard errors


def mean_bpb(runs: Sequence[DocumentLosses]) -> Interval:
    """Return the mean bits per byte of runs with different seeds on the same documents.

    Raises `UserError` if the documents differ.
    """
    losses, counts = _stacked(runs)
    return _interval(losses, counts)


def mean_difference(
    runs: Sequence[DocumentLosses], others: Sequence[DocumentLosses]
) -> Interval | None:
    """Return mean bits per byte of `runs` minus that of `others`, paired by seed and document.

    Run i of both has the same seed. Return None without runs. Raises `UserError` if the documents
    differ.
    """
    if not runs:
        return None
    losses, counts = _stacked([*runs, *others])
    return _interval(losses[: len(runs)] - losses[len(runs) :], counts)


def mean_measure(runs: Sequence[Mapping[str, Any]]) -> Interval | None:
    """Return the mean of a measure over seeds; None without runs.

    The measures have a value and the ends of their intervals, but no values per item. All runs
    answer the same questions, so the interval of the questions does not shrink with the seeds:
    standard error^2 = variance over seeds / seeds + mean (half interval / 1.96)^2. Without
    intervals (low is None) it covers the seeds only; with one seed it is NaN.
    """
    values = np.array([run["value"] for run in runs], dtype=float)  # (seeds,)
    if not len(values):
        return None
    variance = math.nan if len(values) == 1 else float(values.var(ddof=1)) / len(values)
    if all(run["low"] is not None and run["high"] is not None for run in runs):
        halves = np.array([(run["high"] - run["low"]) / 2 for run in runs])
        variance = float(np.mean((halves / Z) ** 2)) + (0.0 if math.isnan(variance) else variance)
    half, mean = Z * math.sqrt(variance), float(values.mean())
    return Interval(mean, mean - half, mean + half)


def _stacked(runs: Sequence[DocumentLosses]) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses (runs, documents) and the byte counts (documents,) of `runs`."""
    counts = runs[0].byte_counts
    for run in runs[1:]:
        if not np.array_equal(run.byte_counts, counts):
            rule = f"{len(counts)} and {len(run.byte_counts)} documents are not the same"
            fix = "evaluate all runs on the same documents"
            raise UserError("held-out documents", None, rule, fix)
    return np.stack([run.nll for run in runs]), counts


def _interval(losses: np.ndarray, counts: np.ndarray) -> Interval:
    """Return the mean over seeds of sum losses / (ln 2 * sum counts), `losses` (seeds, docs)."""
    seeds = len(losses)
    documents = draw_documents(counts, SAMPLES, seed=0)  # (samples, documents)
    drawn = np.random.default_rng([0, seeds]).multinomial(seeds, [1 / seeds] * seeds, size=SAMPLES)
    nats = ((documents @ losses.T) * drawn).sum(1) / seeds  # (samples,)
    low, high = percentiles(nats / (math.log(2) * (documents @ counts)))
    return Interval(bits_per_byte(losses.mean(0), counts), low, high)
