"""Assign documents to rows: packed side by side, or grouped by length and padded.

`pack` fills rows of a fixed length with whole documents: the longest first, then the longest that
fits (best-fit decreasing; Johnson et al. 1974), except that two documents that together fill the
rest of a row exactly are preferred. On 13,253 stories with a median of 322 tokens, rows of 2,048
are filled to 99.7 %, by best fit alone to 98.0 %. `group` collects documents of similar length into
batches padded to the longest.

A document longer than a row is cut into segments of row length; a "piece" in this package is such a
segment, or a whole document. The rows depend only on (lengths, seed), never on the number of ranks.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["Packing", "group", "pack", "padded"]

WINDOW = 16_384  # candidate segments for a row: bounds the run time, and mixes the text
MULTIPLE = 8  # padded length is a multiple of it, as tensor cores require


@dataclass(frozen=True)
class Packing:
    """Segments of documents, ordered by row: row i holds segments offsets[i]:offsets[i + 1]."""

    offsets: np.ndarray  # (rows + 1,)
    documents: np.ndarray  # (pieces,)
    starts: np.ndarray  # (pieces,) first token within the document
    lengths: np.ndarray  # (pieces,)
    capacity: int
    unit: int = 1
    """Number of rows read consecutively, in this order; units are shuffled."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1


def pack(document_lengths: np.ndarray, capacity: int, seed: int) -> Packing:
    """Pack documents of `document_lengths` tokens (documents,) into rows of `capacity` tokens."""
    documents, starts, lengths = _pieces(document_lengths, capacity, seed)
    rows = np.empty(len(lengths), np.int64)
    row = 0
    for begin in range(0, len(lengths), WINDOW):
        pool = _Pool(lengths[begin : begin + WINDOW].tolist(), capacity)
        while length := pool.longest(capacity):
            room = capacity
            while length:
                rows[begin + pool.take(length)] = row
                room -= length
                length = pool.best(room)
            row += 1
    order = np.argsort(rows, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows))])
    return Packing(offsets, documents[order], starts[order], lengths[order], capacity)


class _Pool:
    """Segments not assigned to a row yet, indexed by length.

    Sets of lengths are bit sets: bit l of `_known`, bit C - l of `_mirror`.
    """

    def __init__(self, lengths: list[int], capacity: int) -> None:
        self._capacity = capacity
        self._by_length: list[list[int]] = [[] for _ in range(capacity + 1)]
        for piece, length in enumerate(lengths):
            self._by_length[length].append(piece)
        self._known = sum(1 << length for length in set(lengths))
        self._mirror = sum(1 << (capacity - length) for length in set(lengths))

    def take(self, length: int) -> int:
        """Remove a segment of this length and return its index."""
        piece = self._by_length[length].pop()
        if not self._by_length[length]:
            self._known ^= 1 << length
            self._mirror ^= 1 << (self._capacity - length)
        return piece

    def longest(self, room: int) -> int:
        """Return the largest length up to `room`; 0 if there is none."""
        return max(0, (self._known & ((2 << room) - 1)).bit_length() - 1)

    def best(self, room: int) -> int:
        """Return the next length for a row with `room` left; 0 if nothing fits.

        One that fills the room exactly, else the longer of two that fill it together, else the
        longest. The two are close to half the room, which leaves long and short ones for other
        rows.
        """
        longest = self.longest(room)
        if longest == room:
            return longest
        half = (room + 1) // 2
        # bit l: segments of lengths half + l and room - (half + l) exist
        pairs = (self._known & (self._mirror >> (self._capacity - room))) >> half
        if pairs & 1 and 2 * half == room and len(self._by_length[half]) == 1:
            pairs ^= 1  # a single segment is not a pair
        return half + (pairs & -pairs).bit_length() - 1 if pairs else longest


def group(document_lengths: np.ndarray, capacity: int, unit: int, seed: int) -> Packing:
    """Group documents of similar length into units of `unit` rows.

    All rows of a unit hold the same number of segments, stacked: as many as fit into `capacity`
    positions when all are padded to the longest of the unit. Only rows of the last unit may hold
    fewer or none.
    """
    documents, starts, lengths = _pieces(document_lengths, capacity, seed)
    order = np.argsort(-lengths, kind="stable")
    counts: list[int] = []
    begin = 0
    while begin < len(order):
        most = capacity // padded(int(lengths[order[begin]]), capacity)
        pieces = min(unit * most, len(order) - begin)
        counts += [pieces // unit + (row < pieces % unit) for row in range(unit)]
        begin += pieces
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Packing(offsets, documents[order], starts[order], lengths[order], capacity, unit)


def padded(length: int, capacity: int) -> int:
    """Return the padded width of rows whose longest segment has `length` tokens."""
    return min(capacity, -(-length // MULTIPLE) * MULTIPLE)


def _pieces(
    document_lengths: np.ndarray, capacity: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return document, start and length of all segments, with the documents shuffled."""
    order = np.random.default_rng([seed, 0]).permutation(len(document_lengths))
    whole = document_lengths[order].astype(np.int64)
    counts = -(-whole // capacity)
    documents = np.repeat(order, counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    starts = (np.arange(len(documents)) - first) * capacity
    return documents, starts, np.minimum(capacity, np.repeat(whole, counts) - starts)
