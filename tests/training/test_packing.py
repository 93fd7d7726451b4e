"""Packing and the global order of rows."""

import numpy as np
import pytest

from hpc_llm.training.packing import pack
from hpc_llm.training.shards import IGNORED, PackedReader


class Documents:
    """An indexed data set in memory: the two members of `MMapIndexedDataset` that are read."""

    def __init__(self, documents):
        self.documents = [np.asarray(d) for d in documents]
        self.sizes = np.array([len(d) for d in documents])

    def __len__(self):
        return len(self.documents)

    def get(self, index, offset, length):
        return self.documents[index][offset : offset + length]


def reader(lengths, capacity=16, seed=3):
    documents = [np.arange(1, n + 1) + 1000 * i for i, n in enumerate(lengths)]
    return PackedReader(Documents(documents), np.asarray(lengths) * 2, capacity, seed)


@pytest.mark.parametrize("capacity", [8, 16, 100])
def test_every_token_is_packed_once(capacity):
    lengths = np.random.default_rng(0).integers(1, 60, 200)
    packing = pack(lengths, capacity, seed=1)
    seen = set()
    for document, start, length in zip(
        packing.documents, packing.starts, packing.lengths, strict=True
    ):
        seen |= {(document, start + i) for i in range(length)}
    assert len(seen) == packing.lengths.sum() == lengths.sum()
    rows = np.add.reduceat(packing.lengths, packing.offsets[:-1])
    assert rows.max() <= capacity


def test_documents_that_fit_are_never_cut():
    lengths = np.random.default_rng(0).integers(1, 60, 5000)
    packing = pack(lengths, 64, seed=1)
    assert (packing.lengths == lengths[packing.documents]).all()
    assert packing.efficiency > 0.99


def test_positions_restart_and_labels_stay_inside_a_document():
    rows = reader([5, 7, 3, 16, 20]).read(range(4))
    for ids, positions, labels in zip(rows.input_ids, rows.position_ids, rows.labels, strict=True):
        for i in range(len(ids)):
            if labels[i] != IGNORED:
                assert labels[i] == ids[i] + 1  # the next token of the same document
                assert positions[i + 1] == positions[i] + 1
            if i and positions[i] == 0:
                assert labels[i - 1] == IGNORED
    assert rows.tokens == (rows.input_ids > 0).sum()
    assert rows.label_tokens == rows.tokens - 6  # 6 pieces: the document of 20 is cut once


def test_order_depends_on_seed_and_epoch_only():
    one, same, other = reader([9] * 40), reader([9] * 40), reader([9] * 40, seed=4)
    n = one.rows_per_epoch
    epoch = one.read(range(n)).input_ids
    assert (epoch == same.read(range(n)).input_ids).all()
    assert not (epoch == other.read(range(n)).input_ids).all()
    second = one.read(range(n, 2 * n)).input_ids
    assert not (epoch == second).all()
    assert sorted(map(tuple, epoch)) == sorted(map(tuple, second))


def test_rows_can_be_read_from_anywhere():
    one = reader([9] * 40)
    n = one.rows_per_epoch
    assert (one.read(range(n - 2, n + 3)).labels[3:] == one.read(range(n + 1, n + 3)).labels).all()
