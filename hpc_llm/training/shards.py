"""The reader of packed rows: its whole state is the number of the next row.

Row g of a stage is row order[g % rows] of epoch g // rows, and the order of an epoch depends on
(seed, epoch) only. So any rank finds any row of any step without a history, and a run that is
resumed, or goes on with another number of ranks, sees the same rows in the same order.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hpc_llm.errors import UserError
from hpc_llm.training.packing import pack

__all__ = ["IGNORED", "PackedReader", "Rows"]

IGNORED = -100  # a label without loss


@dataclass(frozen=True)
class Rows:
    """Some packed rows; all arrays are (rows, sequence_length), int64."""

    input_ids: np.ndarray
    position_ids: np.ndarray
    """Positions start at 0 in each document: this is what keeps documents apart."""
    labels: np.ndarray
    """The next token of the same document, or IGNORED."""

    tokens: int
    """Tokens that are no padding."""
    squared_lengths: int
    """Sum of the squared lengths of the documents' pieces: what attention costs."""

    @property
    def label_tokens(self) -> int:
        """Tokens that carry loss."""
        return int((self.labels != IGNORED).sum())


class PackedReader:
    """Packed rows of a shard, in an order that depends on the seed alone."""

    def __init__(self, documents: Any, byte_counts: np.ndarray, capacity: int, seed: int) -> None:
        """Read `documents` (an `MMapIndexedDataset`, one document an entry) in packed rows."""
        if len(documents) == 0:
            raise UserError("the training text holds no document; give more text")
        self.documents = documents
        self.seed = seed
        lengths = np.asarray(documents.sizes)
        self.packing = pack(lengths, capacity, seed)
        self.bytes_per_token = float(byte_counts.sum()) / float(lengths.sum())
        self._order = lru_cache(maxsize=2)(self._epoch_order)

    @property
    def rows_per_epoch(self) -> int:
        """Rows in one pass over the text."""
        return self.packing.rows

    def _epoch_order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 1, epoch]).permutation(self.packing.rows)

    def read(self, indices: range) -> Rows:
        """Return the rows with these global numbers."""
        shape = (len(indices), self.packing.capacity)
        ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        labels = np.full(shape, IGNORED, np.int64)
        lengths: list[np.ndarray] = []
        for i, index in enumerate(indices):
            epoch, place = divmod(index, self.packing.rows)
            row = int(self._order(epoch)[place])
            lengths.append(self._fill(row, ids[i], positions[i], labels[i]))
        all_lengths = np.concatenate(lengths)
        return Rows(ids, positions, labels, int(all_lengths.sum()), int((all_lengths**2).sum()))

    def _fill(
        self, row: int, ids: np.ndarray, positions: np.ndarray, labels: np.ndarray
    ) -> np.ndarray:
        """Write one row into arrays (sequence_length,) of zeros; return its pieces' lengths."""
        packing, end = self.packing, 0
        for piece in range(packing.offsets[row], packing.offsets[row + 1]):
            start, length = int(packing.starts[piece]), int(packing.lengths[piece])
            tokens = self.documents.get(int(packing.documents[piece]), start, length)
            ids[end : end + length] = tokens
            positions[end : end + length] = np.arange(length)
            labels[end : end + length - 1] = tokens[1:]
            end += length
        positions[end:] = np.arange(len(positions) - end)  # padding is a document of its own
        return packing.lengths[packing.offsets[row] : packing.offsets[row + 1]]


def load_byte_counts(prefix: Path) -> np.ndarray:
    """Read the UTF-8 bytes of each document, written beside the shard."""
    return np.load(prefix.with_name(prefix.name + ".bytes.npy"))
