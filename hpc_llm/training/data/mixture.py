"""A mixture of texts in one stream of rows, each with its share of the tokens and its own epochs.

Replaying some of the old text reduces forgetting while a model learns a new language (Robins 1995;
for language models Ibrahim et al. 2024, arXiv 2403.08763). The text of a row, and its index in that
text, follow from the row's global index in closed form: of the first g rows,
floor(g * share + phase) come from the first text, and the rest is split over the others in the same
way. So each share holds to within one row at any point, and any rank can compute any row.
"""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

from hpc_llm.rundir import fingerprint
from hpc_llm.training.data.rows import Rows
from hpc_llm.training.data.shards import PackedReader

__all__ = ["MixedReader", "Reader"]

FINEST = 1_000_000  # denominator of a share


class MixedReader:
    """Rows of several texts, in an order that depends only on the seed.

    Texts grouped by length are mixed unit by unit, so a step reads one text.
    """

    def __init__(self, readers: Sequence[PackedReader], shares: Sequence[float], seed: int) -> None:
        """`shares` of the tokens, above 0, one per reader; the first reader is the main one."""
        self.readers = readers
        self.bytes_per_token = sum(
            share * reader.bytes_per_token for share, reader in zip(shares, readers, strict=True)
        ) / sum(shares)
        rows = [s / r.tokens_per_row for s, r in zip(shares, readers, strict=True)]
        rest = [sum(rows[i:]) for i in range(len(rows))]
        self._splits: list[tuple[Fraction, int]] = []
        for i, (part, whole) in enumerate(zip(rows, rest, strict=True)):
            share = Fraction(part / whole).limit_denominator(FINEST)
            phase = int(np.random.default_rng([seed, 2, i]).integers(share.denominator))
            self._splits.append((share, phase))
        self.tokens_per_row = sum(shares) / rest[0]
        self.squares_per_row = (
            sum(part * reader.squares_per_row for part, reader in zip(rows, readers, strict=True))
            / rest[0]
        )
        self.rows_per_epoch = math.ceil(readers[0].rows_per_epoch * rest[0] / rows[0])
        splits = [(str(share), phase) for share, phase in self._splits]
        self.fingerprint = fingerprint([reader.fingerprint for reader in readers], splits)

    def source(self, number: int) -> tuple[int, int]:
        """Return the text of the row with this global index, and its index in that text."""
        unit = self.readers[0].unit
        number, within = divmod(number, unit)
        for text, (share, phase) in enumerate(self._splits):
            before, after = (
                ((number + k) * share.numerator + phase) // share.denominator for k in (0, 1)
            )
            if after > before:
                return text, before * unit + within
            number -= before
        raise AssertionError("the last share is 1")

    def read(self, numbers: Iterable[int], length: int | None = None) -> Rows:
        """Return the rows with these global indices, cut to `length` tokens if given."""
        sources = [self.source(number) for number in numbers]
        rows = [self.readers[text].pieces(number) for text, number in sources]
        return self.readers[0].lay_out(rows, length)


Reader = PackedReader | MixedReader
"""A source of rows for a stage."""
