"""Which documents stand in which row, and the global order of rows."""

import gzip
import json

import numpy as np
import pytest
import sentencepiece
from documents import numbered
from plain_packing import plain_digest, plain_rows

from hpc_llm.training.data import packing
from hpc_llm.training.data.packing import RowKey, arrange, epoch_order
from hpc_llm.training.data.rows import IGNORED

DRAWN = np.random.default_rng(0)
MIXED = np.random.default_rng(0).integers(1, 60, 200)


@pytest.mark.parametrize("capacity", [8, 16, 100])
@pytest.mark.parametrize("unit", [None, 1, 4])
def test_every_token_is_in_one_row(capacity, unit):
    found = arrange(MIXED, RowKey(capacity, 1, unit))
    seen = set()
    for document, start, length in found.pieces.tolist():
        seen |= {(document, start + i) for i in range(length)}
    assert len(seen) == found.pieces["length"].sum() == MIXED.sum() == found.totals.tokens
    assert found.offsets[-1] == len(found.pieces)


ORDERS = {
    "several windows": (DRAWN.lognormal(3, 0.6, 36_000).astype(int).clip(1, 300), RowKey(64, 2)),
    "one length in most windows": (DRAWN.choice([13, 21, 64, 65], 40_000), RowKey(64, 5)),
    "a document of several windows": (np.array([9, 80_000, 0, 60_000, 7]), RowKey(4, 1)),
    "singles": (DRAWN.integers(1, 512, 60), RowKey(512, 3)),
    "one": (np.array([5]), RowKey(8, 1)),
    "grouped": (DRAWN.lognormal(3, 0.6, 20_000).astype(int).clip(1, 300), RowKey(64, 2, 4)),
    "grouped, one row each": (MIXED, RowKey(100, 4, 1)),
    "grouped, last unit partly empty": (np.array([3, 60, 60]), RowKey(64, 1, 8)),
}


@pytest.mark.parametrize("text", ORDERS)
def test_rows_are_those_of_the_plain_algorithm(text, monkeypatch):
    lengths, key = ORDERS[text]
    monkeypatch.setattr(packing, "BAND", 4000)  # several bands of grouped segments
    found, rows = arrange(lengths, key), plain_rows(lengths, key)
    assert found.pieces.tolist() == [piece for row in rows for piece in row]
    assert found.offsets.tolist() == np.cumsum([0, *map(len, rows)]).tolist()
    assert found.totals.digest == plain_digest(rows, key)
    assert found.totals.tokens == lengths.sum()
    assert found.totals.squares == sum(length**2 for row in rows for _, _, length in row)


@pytest.mark.parametrize("units", [0, 1, 7, 100_000])
def test_rows_are_shuffled_as_numpy_permutes(units):
    expected = np.random.default_rng([3, 1, 2]).permutation(units)
    assert (epoch_order(units, seed=3, epoch=2) == expected).all()


@pytest.mark.parametrize("capacity", [8, 16, 100])
def test_no_packed_row_is_too_long_and_none_empty(capacity):
    found = arrange(MIXED, RowKey(capacity, seed=1))
    rows = np.add.reduceat(found.pieces["length"], found.offsets[:-1])
    assert rows.max() <= capacity
    assert np.diff(found.offsets).min() > 0


def test_documents_that_fit_are_never_cut():
    lengths = np.random.default_rng(0).integers(1, 60, 5000)
    found = arrange(lengths, RowKey(64, seed=1))
    assert (found.pieces["length"] == lengths[found.pieces["document"]]).all()


def best_fit_decreasing(lengths, capacity):
    """Return the rows that the textbook's heuristic takes."""
    room = []
    for length in sorted(lengths, reverse=True):
        fitting = [free for free in room if free >= length]
        if fitting:
            room.remove(min(fitting))
        room.append(min(fitting, default=capacity) - length)
    return len(room)


TEXTS = {
    "uniform": DRAWN.integers(1, 60, 3000),
    "stories": DRAWN.normal(20, 4, 3000).astype(int).clip(1, 64),
    "skewed": DRAWN.lognormal(2, 1, 3000).astype(int).clip(1, 64),
    "a few": DRAWN.normal(20, 4, 50).astype(int).clip(1, 64),
    "two lengths": DRAWN.choice([13, 21], 500),
}


@pytest.mark.parametrize("text", TEXTS)
def test_packing_takes_no_more_rows_than_best_fit_decreasing(text):
    ours = arrange(TEXTS[text], RowKey(64, seed=1)).rows
    assert ours <= best_fit_decreasing(TEXTS[text], 64)


def test_a_large_text_is_packed_window_by_window():
    lengths = np.random.default_rng(0).integers(1, 60, 40_000)  # three windows
    found = arrange(lengths, RowKey(64, seed=1))
    assert sorted(found.pieces["document"]) == list(range(40_000))
    assert lengths.sum() / (64 * found.rows) > 0.99


@pytest.mark.parametrize(
    ("lengths", "rows"),
    [([16, 16], 2), ([8] * 6, 3), ([9] * 5, 5), ([10, 6, 5, 5, 6], 2), ([40], 3), ([1], 1)],
)
def test_small_texts_take_as_few_rows_as_they_can(lengths, rows):
    assert arrange(np.array(lengths), RowKey(16, seed=1)).rows == rows


@pytest.fixture(scope="module")
def stories(shared):
    """Tokens in each of 13,253 Russian stories, BOS and EOS included, by Llama 2's tokenizer."""
    model = shared / "data" / "tokenizers" / "llama2-32k" / "tokenizer.model"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    with gzip.open(shared / "data" / "ru" / "ru_tinystories.jsonl.gz", "rt") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    return np.array([len(ids) + 2 for ids in processor.encode(texts, num_threads=2)])


def test_real_stories_fill_their_rows(stories):
    found = arrange(stories, RowKey(2048, seed=1))
    assert (found.pieces["length"] == stories[found.pieces["document"]]).all()
    assert stories.sum() / (2048 * found.rows) > 0.99


def test_real_stories_by_length_need_little_padding(stories):
    reader, tokens, positions = numbered(stories, 2048, unit=8), 0, 0
    for first in range(0, reader.rows_per_epoch, 8):
        counts = reader.read(range(first, first + 8)).counts
        tokens, positions = tokens + counts.tokens, positions + counts.positions
    assert tokens == stories.sum()
    assert tokens / positions > 0.98


@pytest.mark.parametrize("length", [16, 8, 4])
def test_positions_restart_and_labels_stay_inside_a_document(length):
    reader = numbered([5, 7, 3, 16, 20])
    rows = reader.read(range(4), length)
    assert rows.input_ids.shape == (4 * 16 // length, length)
    squares = 0
    for ids, positions in zip(rows.input_ids, rows.position_ids, strict=True):
        starts = [i for i in range(length) if i == 0 or ids[i] != ids[i - 1] + 1]
        for i in range(length):
            begin = max(s for s in starts if s <= i)
            if ids[i]:
                assert positions[i] == i - begin
        lengths = np.diff([*starts, length])
        squares += sum(n * n for s, n in zip(starts, lengths, strict=True) if ids[s])
    whole = reader.read(range(4))
    assert (rows.input_ids.ravel() == whole.input_ids.ravel()).all()
    assert (rows.labels.ravel() == whole.labels.ravel()).all()
    following = np.pad(whole.input_ids[:, 1:], ((0, 0), (0, 1)))
    same = (following == whole.input_ids + 1) & (whole.input_ids > 0)
    assert (whole.labels == np.where(same, following, IGNORED)).all()
    assert rows.counts.tokens == (rows.input_ids > 0).sum() == 51
    assert rows.counts.label_tokens == 51 - 6  # 6 pieces: the document of 20 is cut once
    assert rows.counts.squared_lengths == squares
    assert (rows.counts.positions, rows.counts.squared_widths) == (64, 64 * length)


def test_grouped_documents_stand_one_below_the_other():
    reader = numbered([5, 9, 3, 40, 20], capacity=32, unit=1)
    seen = {}
    for number in range(reader.rows_per_epoch):
        rows = reader.read([number])
        assert rows.input_ids.size <= 32
        assert (rows.position_ids == np.arange(rows.input_ids.shape[1])).all()
        for ids, labels in zip(rows.input_ids, rows.labels, strict=True):
            n = (ids > 0).sum()
            assert ids[:n].tolist() == list(range(ids[0], ids[0] + n))
            assert labels.tolist() == [*ids[1:n], *[IGNORED] * (len(ids) - n + 1)]
            seen[int(ids[0])] = (n, len(ids))
    assert seen == {1: (5, 8), 1001: (9, 16), 2001: (3, 8), 3001: (32, 32), 3033: (8, 16),
                    4001: (20, 24)}  # fmt: skip


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_grouped_micro_batches_stay_within_their_tokens(micro):
    reader = numbered(np.random.default_rng(1).integers(1, 200, 500), capacity=128, unit=4)
    for first in range(0, 2 * reader.rows_per_epoch, micro):
        rows = reader.read(range(first, first + micro))
        assert rows.counts.positions == rows.input_ids.size <= micro * 128
        assert rows.counts.squared_widths == rows.input_ids.size * rows.input_ids.shape[1]
        assert rows.counts.squared_lengths == sum(len(p) ** 2 for row in rows.pieces for p in row)


def test_steps_of_grouped_documents_are_of_similar_length():
    lengths = np.random.default_rng(1).integers(1, 128, 2000)
    reader = numbered(lengths, capacity=128, unit=4)
    for first in range(0, reader.rows_per_epoch, 4):
        found = [len(p) for row in reader.read(range(first, first + 4)).pieces for p in row]
        assert max(found) - min(found) <= 8 or max(found) < 16


@pytest.mark.parametrize("unit", [None, 4])
def test_order_depends_on_seed_and_epoch_only(unit):
    lengths = [9, 12, 7, 30] * 40
    one, same = (numbered(lengths, 32, unit=unit) for _ in range(2))
    other = numbered(lengths, 32, seed=4, unit=unit)

    def starts(reader, numbers):
        return [[int(p[0]) for p in row] for row in reader.read(numbers).pieces]

    n = one.rows_per_epoch
    first, second = starts(one, range(n)), starts(one, range(n, 2 * n))
    assert first == starts(same, range(n))
    assert first != starts(other, range(other.rows_per_epoch))
    assert first != second
    assert sorted(first) == sorted(second)
    assert starts(one, range(n - 2, n + 3))[2:] == second[:3]  # from anywhere
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_the_fingerprint_distinguishes_another_text_and_other_rows():
    lengths = [9, 12, 7, 30] * 40
    readers = [
        numbered(lengths, 32),
        numbered(lengths, 64),
        numbered(lengths, 32, unit=4),
        numbered(lengths, 32, unit=8),
        numbered([*lengths[:-1], 29], 32),
        numbered(lengths[::-1], 32),
    ]
    assert len({reader.fingerprint for reader in readers}) == len(readers)
