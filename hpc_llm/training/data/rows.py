"""Rows (sequences) as model inputs: token ids, positions and labels, with their counts.

Two layouts separate documents without an attention mask. Side by side, positions that restart at 0
mark the start of a document for transformers. Stacked (one per row), a document cannot attend to
the padding after it, because attention is causal.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hpc_llm.training.data.packing import padded

__all__ = ["IGNORED", "Counts", "Rows", "below", "side_by_side"]

IGNORED = -100  # a label without loss

Pieces = Sequence[np.ndarray]
"""Token ids of segments of documents."""


class Counts(NamedTuple):
    """Size and cost of rows; additive over ranks and steps."""

    tokens: int
    """Tokens of text."""
    label_tokens: int
    """Tokens that carry loss."""
    squared_lengths: int
    """Sum of the squared segment lengths: the cost of attention within documents."""
    positions: int
    """Tokens, including padding."""
    squared_widths: int
    """Sum of the squared row lengths: the cost of attention over whole rows."""

    @classmethod
    def of(cls, parts: Iterable["Rows"]) -> "Counts":
        """Return the sums of some rows."""
        return cls(*(sum(column) for column in zip(*(p.counts for p in parts), strict=True)))


@dataclass(frozen=True)
class Rows:
    """The rows of a forward pass; arrays are (rows, width), int64."""

    input_ids: np.ndarray
    position_ids: np.ndarray
    labels: np.ndarray
    """The next token of the same document, or IGNORED."""
    pieces: Sequence[Pieces]
    """The segments in each row of the packing, in either layout."""
    counts: Counts


def side_by_side(rows: Sequence[Pieces], capacity: int, length: int | None = None) -> Rows:
    """Lay out rows of `capacity` tokens, each with its segments one after another.

    With a `length` that divides `capacity`, each row is cut into several of that length: a segment
    that crosses a boundary continues in the next row from position 0.
    """
    length = length or capacity
    shape, within = (len(rows), capacity), np.arange(capacity)
    ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    labels = np.full(shape, IGNORED, np.int64)
    ends = np.zeros((len(rows), 1), np.int64)
    for i, pieces in enumerate(rows):
        end = 0
        for tokens in pieces:
            begin, end = end, end + len(tokens)
            ids[i, begin:end] = tokens
            positions[i, begin:end] = within[: len(tokens)]
            labels[i, begin : end - 1] = tokens[1:]
        positions[i, end:] = within[: capacity - end]  # padding is a separate document
        ends[i] = end
    positions = np.minimum(positions.reshape(-1, length), within[:length])
    text = (within < ends).reshape(-1, length)
    counts = Counts(
        tokens=int(ends.sum()),
        label_tokens=int(np.count_nonzero(labels != IGNORED)),
        squared_lengths=int((2 * positions[text] + 1).sum()),  # 1 + 3 + ... + (2 n - 1) = n^2
        positions=ids.size,
        squared_widths=ids.size * length,
    )
    return Rows(ids.reshape(-1, length), positions, labels.reshape(-1, length), rows, counts)


def below(rows: Sequence[Pieces], capacity: int) -> Rows:
    """Lay out all segments one per row, padded to the longest.

    Without any segment, one row of padding: every rank must run every forward pass.
    """
    pieces = [tokens for row in rows for tokens in row]
    lengths = np.array([len(tokens) for tokens in pieces], np.int64)
    width = padded(int(max(lengths, default=1)), capacity)
    shape = (max(1, len(pieces)), width)
    ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
    for i, tokens in enumerate(pieces):
        ids[i, : len(tokens)] = tokens
        labels[i, : len(tokens) - 1] = tokens[1:]
    counts = Counts(
        tokens=int(lengths.sum()),
        label_tokens=int(np.count_nonzero(labels != IGNORED)),
        squared_lengths=int((lengths**2).sum()),
        positions=ids.size,
        squared_widths=ids.size * width,
    )
    return Rows(ids, np.tile(np.arange(width), (shape[0], 1)), labels, rows, counts)
