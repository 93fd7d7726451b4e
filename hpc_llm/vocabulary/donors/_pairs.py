"""Counts of neighbouring tokens, their positive pointwise mutual information, and its factors."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from hpc_llm.vocabulary.donors._vectors import up_to

__all__ = ["count_pairs", "factors", "positive_information", "text_chunks"]

SMOOTHING = 0.75
CHUNK = 1_000_000  # tokens counted at a time


def count_pairs(
    documents: list[np.ndarray], size: int, window: int
) -> "scipy.sparse.csr_array[np.int64]":
    """Return the counts (size, size) of ordered pairs within `window`, symmetric.

    A pair at distance k counts lcm(1, ..., window) / k, a whole number, so that sums of counts of
    parts of a text are exact in any order.
    """
    whole = math.lcm(*range(1, window + 1))
    ids = np.concatenate(documents)
    owner = np.repeat(np.arange(len(documents)), [len(d) for d in documents])
    total = scipy.sparse.csr_array((size, size), dtype=np.int64)
    for distance in range(1, min(window, len(ids) - 1) + 1):
        inside = owner[distance:] == owner[:-distance]
        first, second = ids[:-distance][inside], ids[distance:][inside]
        weights = np.full(len(first), whole // distance, np.int64)
        one = scipy.sparse.coo_array((weights, (first, second)), shape=(size, size)).tocsr()
        total = total + one + one.T
    return total


def text_chunks(text: Iterable[np.ndarray], most: int) -> Iterator[list[np.ndarray]]:
    """Yield lists of documents of about CHUNK tokens, `most` tokens in all."""
    held: list[np.ndarray] = []
    for document in up_to(text, most):
        held.append(document)
        if sum(map(len, held)) >= CHUNK:
            yield held
            held = []
    if held:
        yield held


def positive_information(
    pairs: "scipy.sparse.csr_array[np.int64]",
) -> "scipy.sparse.csr_array[np.float64]":
    """Return max(0, log(P(i, j) / (P(i) P(j)))) with smoothed P(j), of counts (n, n)."""
    found = pairs.tocoo()
    sums = np.asarray(pairs.sum(1), np.float64)
    smoothed = sums**SMOOTHING
    rows, columns = found.coords
    values = found.data / sums[rows] * (smoothed.sum() / smoothed[columns])
    information = np.maximum(0.0, np.log(values))
    return scipy.sparse.coo_array((information, (rows, columns)), shape=pairs.shape).tocsr()


def factors(matrix: "scipy.sparse.csr_array[np.float64]", rank: int) -> np.ndarray:
    """Return U S^(1/2) (n, rank) with fixed signs: the largest entry of a column is positive."""
    start = np.ones(matrix.shape[0]) / math.sqrt(matrix.shape[0])
    left, values, _ = scipy.sparse.linalg.svds(matrix, k=rank, v0=start, solver="arpack")
    order = np.argsort(-values)
    left, values = left[:, order], values[order]
    largest = left[np.abs(left).argmax(0), np.arange(rank)]
    result: np.ndarray = left * np.where(largest < 0, -1.0, 1.0) * np.sqrt(values)
    return result
