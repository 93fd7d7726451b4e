"""A stateless reader of packed rows: its whole state is the index of the next row.

Row g belongs to epoch g // rows, and the order of an epoch depends only on (seed, epoch). So any
rank can compute any row of any step without history, and a run that resumes, or continues with
another number of ranks, reads the same rows in the same order.
"""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hpc_llm.errors import UserError
from hpc_llm.rundir import fingerprint
from hpc_llm.training.data.packing import Packing, RowKey, arrange, epoch_order
from hpc_llm.training.data.rows import Pieces, Rows, below, side_by_side

__all__ = ["PackedReader", "count_bytes"]


class PackedReader:
    """Rows of a text, in an order that depends only on the seed."""

    def __init__(
        self, documents: Any, text_bytes: int, key: RowKey, packing: Packing | None = None
    ) -> None:
        """Read `documents` (an `MMapIndexedDataset`, one document per entry) of `text_bytes` UTF-8
        bytes, in the rows of `packing` (None: computed from `key`).
        """
        if len(documents) == 0:
            raise UserError("corpus", None, "the training text has no documents", "add text")
        self.documents = documents
        self.key = key
        self.packing = packing or arrange(np.asarray(documents.sizes), key)
        totals, rows = self.packing.totals, self.packing.rows
        self.bytes_per_token = text_bytes / totals.tokens
        self.tokens_per_row = totals.tokens / rows
        self.squares_per_row = totals.squares / rows
        self._order = lru_cache(maxsize=2)(self._epoch_order)
        self.fingerprint = fingerprint(key.data, key.seed, key.capacity, key.unit, totals.digest)

    @property
    def rows_per_epoch(self) -> int:
        """Number of rows per epoch."""
        return self.packing.rows

    @property
    def unit(self) -> int:
        """Number of rows read consecutively."""
        return self.packing.unit

    def _epoch_order(self, epoch: int) -> np.ndarray:
        return epoch_order(self.packing.rows // self.unit, self.key.seed, epoch)

    def pieces(self, number: int) -> Pieces:
        """Return the segments in the row with this global index."""
        packing = self.packing
        epoch, place = divmod(number, packing.rows)
        row = int(self._order(epoch)[place // self.unit]) * self.unit + place % self.unit
        begin, end = packing.offsets[row : row + 2]
        return [self.documents.get(*piece) for piece in packing.pieces[begin:end].tolist()]

    def read(self, numbers: Iterable[int], length: int | None = None) -> Rows:
        """Return the rows with these global indices, cut to `length` tokens if given."""
        return self.lay_out([self.pieces(number) for number in numbers], length)

    def lay_out(self, rows: list[Pieces], length: int | None = None) -> Rows:
        """Return rows with these segments, in the layout of this reader."""
        if self.key.unit is not None:
            return below(rows, self.key.capacity)
        return side_by_side(rows, self.key.capacity, length)


def count_bytes(prefix: Path) -> int:
    """Return the UTF-8 bytes of a text, of which those of each document are beside the shard."""
    return int(np.load(prefix.with_name(prefix.name + ".bytes.npy"), mmap_mode="r").sum())
