"""A mixture of texts in one stream of rows, each with its share of the tokens and its own epochs.

Replaying some of the old text reduces forgetting while a model learns a new language (Robins 1995;
for language models Ibrahim et al. 2024, arXiv 2403.08763). The text of a row, and its index in that
text, follow from the row's global index in closed form, so any rank can compute any row: of the
first n rows, floor(n * share + phase) come from one part of the texts, and each part is split
further in the same way. The parts are those of a Huffman tree over the shares, which adds up the
fewest rounding errors: at any point a text has its share to within one row (two texts, or the seven
of LLaMA) or two (any number of texts; see `split_texts`).
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hpc_llm.rundir import fingerprint
from hpc_llm.training.data.rows import Rows
from hpc_llm.training.data.shards import PackedReader

__all__ = ["MixedReader", "Reader"]

FINEST = 1_000_000  # denominator of a share


@dataclass(frozen=True)
class Split:
    """The rows of some texts, split into those of a first part and those of the rest."""

    first: "Split | int"
    """A split, or the number of a text."""
    rest: "Split | int"
    share: Fraction
    """Share of the first part."""
    phase: int
    """Added to it, in units of 1 / its denominator."""

    def before(self, number: int) -> int:
        """Return how many of the first `number` rows are of the first part."""
        return (number * self.share.numerator + self.phase) // self.share.denominator

    def __iter__(self) -> Iterator["Split"]:
        """Yield this split and those below it."""
        yield self
        for part in (self.first, self.rest):
            if isinstance(part, Split):
                yield from part


def split_texts(shares: Sequence[float], seed: int) -> Split:
    """Return the splits of two or more texts with these shares of the rows.

    Two texts start at a random phase. The error of a split is then below one row. With more texts
    it is rounded: at most half a row, to which a text adds the errors of the splits above its own,
    each in proportion to its share in that split.
    """
    heap: list[tuple[float, int, Split | int]] = [(own, i, i) for i, own in enumerate(shares)]
    heapq.heapify(heap)
    while len(heap) > 1:
        pair = (heapq.heappop(heap), heapq.heappop(heap))
        (part, number, first), (other, _, rest) = sorted(pair, key=lambda own: own[1])
        share = Fraction(part / (part + other)).limit_denominator(FINEST)
        phase = share.denominator // 2
        if len(shares) == 2:
            phase = int(np.random.default_rng([seed, 2, 0]).integers(share.denominator))
        heapq.heappush(heap, (part + other, number, Split(first, rest, share, phase)))
    whole = heap[0][2]
    assert isinstance(whole, Split)
    return whole


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
        whole = sum(rows)
        self.split = split_texts(rows, seed)
        self.tokens_per_row = sum(shares) / whole
        self.squares_per_row = (
            sum(part * reader.squares_per_row for part, reader in zip(rows, readers, strict=True))
            / whole
        )
        self.rows_per_epoch = math.ceil(readers[0].rows_per_epoch * whole / rows[0])
        splits = [*((str(one.share), one.phase) for one in self.split), ("1", 0)]
        self.fingerprint = fingerprint([reader.fingerprint for reader in readers], splits)

    def source(self, number: int) -> tuple[int, int]:
        """Return the text of the row with this global index, and its index in that text."""
        unit = self.readers[0].unit
        number, within = divmod(number, unit)
        part: Split | int = self.split
        while isinstance(part, Split):
            before, after = part.before(number), part.before(number + 1)
            part, number = (part.first, before) if after > before else (part.rest, number - before)
        return part, number * unit + within

    def rows_of_each(self, number: int) -> list[int]:
        """Return how many of the first `number` rows are of each text."""
        unit = self.readers[0].unit
        whole, within = divmod(number, unit)
        found = [0] * len(self.readers)
        for text, rows in _counts(self.split, whole):
            found[text] = rows * unit
        found[self.source(number)[0]] += within
        return found

    def read(self, numbers: Iterable[int], length: int | None = None) -> Rows:
        """Return the rows with these global indices, cut to `length` tokens if given."""
        sources = [self.source(number) for number in numbers]
        rows = [self.readers[text].pieces(number) for text, number in sources]
        return self.readers[0].lay_out(rows, length)


def _counts(part: Split | int, number: int) -> Iterator[tuple[int, int]]:
    """Yield the texts of a part, and how many of its first `number` rows they have."""
    if isinstance(part, Split):
        before = part.before(number)
        yield from _counts(part.first, before)
        yield from _counts(part.rest, number - before)
    else:
        yield part, number


Reader = PackedReader | MixedReader
"""A source of rows for a stage."""
