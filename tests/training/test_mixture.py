"""Several texts in one stream: shares of the tokens, epochs of their own, any row from anywhere."""

from collections import Counter

import numpy as np
import pytest
from documents import Documents, numbered

from hpc_llm.training.data.batches import BatchPlan
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


LLAMA = (0.67, 0.15, 0.045, 0.045, 0.045, 0.025, 0.02)
"""Shares of its seven sources: Touvron et al. 2023 (arXiv 2302.13971), table 1."""


def test_the_seven_sources_of_llama_have_their_rows_at_any_point():
    texts = [text(np.full(50, 64), i) for i in range(7)]
    reader = MixedReader(texts, LLAMA, seed=1)
    counts = np.array([reader.rows_of_each(number) for number in range(20_001)])
    assert (counts.sum(1) == np.arange(20_001)).all()
    assert np.abs(counts - np.outer(np.arange(20_001), LLAMA)).max() < 1
    steps = np.diff(counts, axis=0)
    assert (steps >= 0).all()
    assert [reader.source(n)[0] for n in range(2000)] == steps[:2000].argmax(1).tolist()
    assert counts[20_000].tolist() == [round(20_000 * share) for share in LLAMA]


@pytest.mark.parametrize("unit", [None, 4])
def test_any_mixture_is_within_two_rows_of_its_shares(unit):
    drawn = np.random.default_rng(3)
    for number in (3, 5, 12):
        shares = drawn.dirichlet(np.full(number, 0.5)) + 1e-4
        shares /= shares.sum()
        reader = MixedReader([text(np.full(50, 64), i, unit) for i in range(number)], shares, 1)
        rows = np.arange(0, 8_000, 7) * (unit or 1)
        counts = np.array([reader.rows_of_each(int(n)) for n in rows])
        assert np.abs(counts - np.outer(rows, shares)).max() < 2 * (unit or 1)


@pytest.mark.parametrize("unit", [None, 4])
def test_counts_are_those_of_the_stream(unit):
    reader = MixedReader([text(n, 1, unit) for n in (LONG, SHORT, THIRD)], (0.5, 0.3, 0.2), seed=1)
    seen = [0, 0, 0]
    for number in range(301):
        assert reader.rows_of_each(number) == seen
        seen[reader.source(number)[0]] += 1


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_of_any_number_read_the_rows_of_a_mixture_once(world_size):
    plan = BatchPlan(64, 8, 2, 4 // world_size or 1, world_size)
    reader = MixedReader([text(np.full(50, 64), i) for i in range(7)], LLAMA, seed=1)
    for step in (0, 6, 7):  # a start at step 6 reads what an uninterrupted run reads
        rows = [n for rank in range(world_size) for part in plan.indices(step, rank) for n in part]
        assert sorted(rows) == list(range(8 * step, 8 * step + 8))
        alone = reader.read(range(8 * step, 8 * step + 8)).input_ids
        order = np.argsort(rows)
        assert (reader.read(rows).input_ids[order] == alone).all()
