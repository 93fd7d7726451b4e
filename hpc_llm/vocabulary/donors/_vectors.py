"""What donors share: documents of bounded size, and vectors with the important columns first."""

from collections.abc import Iterable, Iterator

import numpy as np

__all__ = ["by_importance", "count_tokens", "up_to"]

CHUNK = 4096  # vectors in float64 at a time


def up_to(text: Iterable[np.ndarray], most: int) -> Iterator[np.ndarray]:
    """Yield the documents (length,) of `text`, the last one cut, `most` tokens in all."""
    for document in text:
        part = np.asarray(document[:most])
        most -= len(part)
        if len(part):
            yield part
        if most <= 0:
            return


def count_tokens(text: Iterable[np.ndarray], size: int, most: int) -> np.ndarray:
    """Return how often each of `size` tokens is in the first `most` tokens, int64 (size,)."""
    counts = np.zeros(size, np.int64)
    for document in up_to(text, most):
        np.add.at(counts, document.astype(np.int64), 1)
    return counts


def by_importance(vectors: np.ndarray, known: np.ndarray, dimensions: int) -> np.ndarray:
    """Return vectors (n, q) rotated onto the principal axes of the known ones, cut to `dimensions`.

    Uncut, all inner products stay. The largest entry of an axis is positive, so equal vectors give
    equal results.
    """
    parts = [slice(begin, begin + CHUNK) for begin in range(0, len(vectors), CHUNK)]
    gram = np.zeros((vectors.shape[1], vectors.shape[1]))
    for part in parts:
        seen = vectors[part][known[part]].astype(np.float64)
        gram += seen.T @ seen
    values, axes = np.linalg.eigh(gram)
    axes = axes[:, np.argsort(-values)[:dimensions]]
    axes *= np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    result = np.zeros((len(vectors), axes.shape[1]))
    for part in parts:
        result[part] = (vectors[part].astype(np.float64) @ axes) * known[part, None]
    return result
