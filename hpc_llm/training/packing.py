"""Packing: whole documents side by side in rows of a fixed length, none cut where it fits.

Best fit, the longest first, within windows of shuffled documents (best-fit decreasing; Johnson
et al. 1974). A document longer than a row is cut into row-long pieces. The rows depend on
(lengths, seed) only, never on the number of ranks.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

__all__ = ["Packing", "pack"]

WINDOW = 16_384  # documents that are sorted together
OPEN_ROWS = 4_096


@dataclass(frozen=True)
class Packing:
    """Pieces of documents, ordered by row: row i holds pieces offsets[i]:offsets[i + 1]."""

    offsets: np.ndarray  # (rows + 1,)
    documents: np.ndarray  # (pieces,)
    starts: np.ndarray  # (pieces,) first token within the document
    lengths: np.ndarray  # (pieces,)
    capacity: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    @property
    def efficiency(self) -> float:
        """Share of the positions that hold a token."""
        return float(self.lengths.sum()) / (self.rows * self.capacity)


def pack(document_lengths: np.ndarray, capacity: int, seed: int) -> Packing:
    """Pack documents of `document_lengths` tokens (documents,) into rows of `capacity` tokens."""
    order = np.random.default_rng([seed, 0]).permutation(len(document_lengths))
    rows: list[list[tuple[int, int, int]]] = []
    room: list[tuple[int, int]] = []  # (free tokens, row) of the open rows, ascending
    for begin in range(0, len(order), WINDOW):
        for piece in _pieces(order[begin : begin + WINDOW], document_lengths, capacity):
            length = piece[2]
            place = bisect_left(room, (length, -1))
            free, row = room.pop(place) if place < len(room) else (capacity, len(rows))
            if row == len(rows):
                rows.append([])
            rows[row].append(piece)
            if free > length:
                insort(room, (free - length, row))
            if len(room) > OPEN_ROWS:
                room.pop(0)  # the fullest
    pieces = np.array([piece for row in rows for piece in row], dtype=np.int64).reshape(-1, 3)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Packing(offsets, pieces[:, 0], pieces[:, 1], pieces[:, 2], capacity)


def _pieces(
    documents: np.ndarray, document_lengths: np.ndarray, capacity: int
) -> list[tuple[int, int, int]]:
    """Return (document, start, length) of the row-long pieces, the longest first."""
    pieces = [
        (document, start, min(capacity, length - start))
        for document, length in zip(
            documents.tolist(), document_lengths[documents].tolist(), strict=True
        )
        for start in range(0, length, capacity)
    ]
    return sorted(pieces, key=lambda piece: -piece[2])
