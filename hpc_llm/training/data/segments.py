"""Segments of documents in shuffled order, read window by window.

A document longer than a row is cut into segments of row length. The order of the documents, and so
of the segments, depends only on the seed. Only the order itself is held in memory, 4 bytes for a
document; a window of segments is computed when it is read, so any process can read any window.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["BLOCK", "PIECE", "WINDOW", "Segments", "shuffled"]

WINDOW = 16_384  # candidate segments for a row: bounds the run time, and mixes the text
BLOCK = 2**18  # documents, pieces or rows that are processed at a time
ORDER, BOUNDS = "order.npy", "bounds.npy"
PIECE = np.dtype([("document", "<u4"), ("start", "<u4"), ("length", "<u4")])
"""A segment: its document, its first token within the document, and its number of tokens."""


@dataclass(frozen=True)
class Segments:
    """The segments of all documents, in windows of `WINDOW`; the last one may be smaller."""

    lengths: np.ndarray  # (documents,) tokens
    order: np.ndarray  # (documents,) shuffled
    bounds: np.ndarray
    """(windows + 1, 2): where a window begins, the position in `order` and the segment of that
    document; last the number of documents and of all segments."""
    capacity: int
    """Tokens of a row."""

    @classmethod
    def of(cls, lengths: np.ndarray, capacity: int, seed: int) -> "Segments":
        """Shuffle documents of `lengths` tokens (documents,) and find where the windows begin."""
        order = shuffled(len(lengths), [seed, 0])
        return cls(lengths, order, _bounds(lengths, order, capacity), capacity)

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""
        np.save(folder / ORDER, self.order)
        np.save(folder / BOUNDS, self.bounds)

    @classmethod
    def load(cls, folder: Path, lengths: np.ndarray, capacity: int) -> "Segments":
        """Return the segments that `save` wrote, their order memory-mapped."""
        return cls(
            lengths, np.load(folder / ORDER, mmap_mode="r"), np.load(folder / BOUNDS), capacity
        )

    @property
    def count(self) -> int:
        """Number of segments."""
        return int(self.bounds[-1, 1])

    @property
    def windows(self) -> int:
        """Number of windows."""
        return len(self.bounds) - 1

    def window(self, number: int) -> np.ndarray:
        """Return the segments of a window, (at most WINDOW,) of `PIECE`."""
        place, part = self.bounds[number]
        documents = self.order[place : self.bounds[number + 1, 0] + 1]
        whole = self.lengths[documents].astype(np.int64)
        counts = -(-whole // self.capacity)
        counts[0] -= part
        ends = np.minimum(np.cumsum(counts), min(WINDOW, self.count - number * WINDOW))
        counts = np.diff(ends, prepend=0)
        starts = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        starts[: counts[0]] += part
        pieces = np.empty(ends[-1], PIECE)
        pieces["document"] = np.repeat(documents, counts)
        pieces["start"] = starts * self.capacity
        left = np.repeat(whole, counts) - starts * self.capacity
        pieces["length"] = np.minimum(self.capacity, left)
        return pieces

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield all windows."""
        return map(self.window, range(self.windows))

    def histogram(self) -> np.ndarray:
        """Return the number of segments of each length, (capacity + 1,)."""
        found = np.zeros(self.capacity + 1, np.int64)
        for pieces in self:
            found += np.bincount(pieces["length"], minlength=self.capacity + 1)
        return found


def shuffled(count: int, seed: list[int]) -> np.ndarray:
    """Return 0 to `count` - 1 in random order, as `default_rng(seed).permutation(count)` does.

    Takes 4 bytes for each instead of 8: the draws do not depend on the type.
    """
    order = np.arange(count, dtype=np.uint32 if count <= 2**32 else np.int64)
    np.random.default_rng(seed).shuffle(order)
    return order


def _bounds(lengths: np.ndarray, order: np.ndarray, capacity: int) -> np.ndarray:
    """Return `Segments.bounds`."""
    found, before = [], 0
    for begin in range(0, len(order), BLOCK):
        counts = -(-lengths[order[begin : begin + BLOCK]].astype(np.int64) // capacity)
        ends = before + np.cumsum(counts)
        first = np.arange(-(-before // WINDOW) * WINDOW, ends[-1], WINDOW)
        at = np.searchsorted(ends, first, side="right")
        found.append(np.stack([begin + at, first - (ends[at] - counts[at])], axis=1))
        before = int(ends[-1])
    return np.concatenate([*found, [[len(order), before]]]).astype(np.int64)
