"""A stateless reader of packed rows: its whole state is the index of the next row.

Row g belongs to epoch g // rows, and the order of an epoch depends only on (seed, epoch). So any
rank can compute any row of any step without history, and a run that resumes, or continues with
another number of ranks, reads the same rows in the same order.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hpc_llm.errors import UserError
from hpc_llm.rundir import fingerprint
from hpc_llm.training.data.packing import group, pack
from hpc_llm.training.data.rows import Pieces, Rows, below, side_by_side

__all__ = ["PackedReader", "load_byte_counts"]


class PackedReader:
    """Rows of a text, in an order that depends only on the seed."""

    def __init__(
        self,
        documents: Any,
        byte_counts: np.ndarray,
        capacity: int,
        seed: int,
        unit: int | None = None,
        data: str = "",
    ) -> None:
        """Read `documents` (an `MMapIndexedDataset`, one document per entry), packed.

        With `unit`, documents are stacked instead, grouped by length in units of `unit` rows
        (`packing.group`). `data` is the fingerprint of their content.
        """
        if len(documents) == 0:
            raise UserError("corpus", None, "the training text has no documents", "add text")
        self.documents = documents
        self.seed = seed
        self.capacity = capacity
        self.apart = unit is not None
        lengths = np.asarray(documents.sizes)
        self.packing = (
            pack(lengths, capacity, seed) if unit is None else group(lengths, capacity, unit, seed)
        )
        self.bytes_per_token = float(byte_counts.sum()) / float(lengths.sum())
        pieces = self.packing.lengths.astype(np.float64)
        self.tokens_per_row = float(pieces.sum()) / self.packing.rows
        self.squares_per_row = float((pieces**2).sum()) / self.packing.rows
        self._order = lru_cache(maxsize=2)(self._epoch_order)
        self.fingerprint = fingerprint(data, seed, capacity, unit, self._rows_digest())

    @property
    def rows_per_epoch(self) -> int:
        """Number of rows per epoch."""
        return self.packing.rows

    @property
    def unit(self) -> int:
        """Number of rows read consecutively."""
        return self.packing.unit

    def _epoch_order(self, epoch: int) -> np.ndarray:
        units = self.packing.rows // self.unit
        return np.random.default_rng([self.seed, 1, epoch]).permutation(units)

    def _rows_digest(self) -> str:
        """Hash the packing and the order of epoch 0: other software versions may differ."""
        digest = hashlib.sha256()
        for values in (self.packing.offsets, self.packing.documents, self._order(0)):
            digest.update(values.astype(np.int64).tobytes())
        return digest.hexdigest()

    def pieces(self, number: int) -> Pieces:
        """Return the segments in the row with this global index."""
        packing = self.packing
        epoch, place = divmod(number, packing.rows)
        row = int(self._order(epoch)[place // self.unit]) * self.unit + place % self.unit
        return [
            self.documents.get(
                int(packing.documents[i]), int(packing.starts[i]), int(packing.lengths[i])
            )
            for i in range(packing.offsets[row], packing.offsets[row + 1])
        ]

    def read(self, numbers: Iterable[int], length: int | None = None) -> Rows:
        """Return the rows with these global indices, cut to `length` tokens if given."""
        return self.lay_out([self.pieces(number) for number in numbers], length)

    def lay_out(self, rows: list[Pieces], length: int | None = None) -> Rows:
        """Return rows with these segments, in the layout of this reader."""
        if self.apart:
            return below(rows, self.capacity)
        return side_by_side(rows, self.capacity, length)


def load_byte_counts(prefix: Path) -> np.ndarray:
    """Read the UTF-8 byte count of each document, stored beside the shard."""
    return np.load(prefix.with_name(prefix.name + ".bytes.npy"))
