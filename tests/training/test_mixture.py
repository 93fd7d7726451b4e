"""Several texts in one stream: shares of the tokens, epochs of their own, any row from anywhere."""

from collections import Counter

import numpy as np
import pytest
from documents import Documents, numbered

from hpc_llm.training.data.mixture import MixedReader
from hpc_llm.training.data.packing import RowKey
from hpc_llm.training.data.shards import PackedReader

DRAWN = np.random.default_rng(2)
LONG, SHORT, THIRD = (DRAWN.integers(*bounds, 300) for bounds in ((20, 64), (2, 12), (30, 34)))


def text(lengths, first, unit=None):
    """Return the reader of documents whose tokens all are `first`."""
    documents = Documents([np.full(n, first) for n in lengths])
    return PackedReader(documents, 2 * int(lengths.sum()), RowKey(64, 3, unit))


@pytest.mark.parametrize("unit", [None, 4])
@pytest.mark.parametrize("shares", [(0.9, 0.1), (0.99, 0.01), (0.3, 0.7), (0.7, 0.2, 0.1)])
def test_each_text_has_its_share_of_the_tokens(unit, shares):
    texts = [text(n, i + 1, unit) for i, n in enumerate((LONG, SHORT, THIRD)[: len(shares)])]
    reader = MixedReader(texts, shares, seed=1)
    rows = 8000 * (unit or 1)
    ids = np.concatenate([p for number in range(rows) for p in reader.read([number]).pieces[0]])
    found = [(ids == i + 1).mean() for i in range(len(shares))]
    assert found == pytest.approx(shares, rel=0.01)
    assert len(ids) / rows == pytest.approx(reader.tokens_per_row, rel=0.01)


@pytest.mark.parametrize("unit", [None, 4])
def test_each_text_is_read_row_by_row_in_its_own_epochs(unit):
    texts = [text(n, i, unit) for i, n in enumerate((LONG, SHORT, THIRD))]
    reader = MixedReader(texts, (0.5, 0.3, 0.2), seed=1)
    sources = [reader.source(number) for number in range(5000)]
    for i in range(3):
        assert [n for which, n in sources if which == i] == list(
            range(sum(s[0] == i for s in sources))
        )
    epoch = reader.rows_per_epoch
    assert abs(sum(which == 0 for which, _ in sources[:epoch]) - texts[0].rows_per_epoch) <= 4


def test_shares_hold_in_every_stretch_to_a_row():
    reader = MixedReader([text(LONG, 1), text(LONG, 2)], (0.75, 0.25), seed=1)
    sources = np.array([reader.source(number)[0] for number in range(1000)])
    for length in (4, 40, 400):
        counts = np.convolve(sources, np.ones(length, int), "valid")
        assert set(counts) <= {length // 4}


def test_the_stream_depends_on_its_seed_and_texts_alone():
    def stream(seed, *shares):
        return MixedReader([text(LONG, 1), text(SHORT, 2)], shares, seed)

    one, same, other = stream(1, 0.9, 0.1), stream(1, 0.9, 0.1), stream(2, 0.9, 0.1)
    ids = one.read(range(200)).input_ids
    assert (ids == same.read(range(200)).input_ids).all()
    assert not (ids == other.read(range(200)).input_ids).all()
    assert (ids[150:] == same.read(range(150, 200)).input_ids).all()  # from anywhere
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert stream(1, 0.8, 0.2).fingerprint != one.fingerprint


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_grouped_steps_are_of_one_text(world_size):
    reader = MixedReader([text(LONG, 1, 8), text(SHORT, 2, 8)], (0.6, 0.4), seed=1)
    seen = Counter()
    for step in range(50):
        rows = range(8 * step, 8 * step + 8)
        share = 8 // world_size
        parts = [reader.read(rows[k : k + share]) for k in range(0, 8, share)]
        (which,) = {int(p[0]) for part in parts for row in part.pieces for p in row}
        seen[which] += 1
    assert min(seen.values()) > 5


def test_bytes_are_counted_by_the_shares():
    texts = [numbered([8] * 9), numbered([4] * 9)]
    texts[1].bytes_per_token = 6.0
    assert MixedReader(texts, (0.75, 0.25), seed=1).bytes_per_token == 0.75 * 2 + 0.25 * 6
