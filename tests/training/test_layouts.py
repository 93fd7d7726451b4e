"""Documents side by side, one below the other and alone give the same loss and gradient."""

import numpy as np
import pytest
import torch
from documents import Documents
from transformers import LlamaConfig, LlamaForCausalLM

from hpc_llm.training.data.packing import RowKey
from hpc_llm.training.data.rows import IGNORED, Counts, below, side_by_side
from hpc_llm.training.data.shards import PackedReader
from hpc_llm.training.kernels.losses import CausalLoss

DRAWN = np.random.default_rng(4)
LENGTHS = [*DRAWN.integers(2, 30, 40), 1, 32, 33, 70]
TEXT = [DRAWN.integers(0, 40, n) for n in LENGTHS]


@pytest.fixture(scope="module")
def loss():
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        vocab_size=40, max_position_embeddings=32,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    return CausalLoss(model, model, 1)


def total(loss, parts):
    """Return the summed loss of some rows and its gradient."""
    loss.zero_grad()
    value = 0.0
    for rows in parts:
        arrays = (rows.input_ids, rows.position_ids, rows.labels)
        part = loss(*(torch.from_numpy(array) for array in arrays))
        part.backward()
        value += float(part.detach())
    gradient = torch.cat([p.grad.flatten() for p in loss.parameters()])
    return value, gradient


def epoch(rows, unit=None, length=None):
    """Read the text once, `rows` rows at a time."""
    reader = PackedReader(Documents(TEXT), sum(LENGTHS), RowKey(32, 3, unit))
    n = reader.rows_per_epoch
    return [reader.read(range(i, min(n, i + rows)), length) for i in range(0, n, rows)]


def alone(capacity):
    """Each document for itself, cut where it is longer than a row."""
    pieces = [d[i : i + capacity] for d in TEXT for i in range(0, len(d), capacity)]
    return [below([[piece]], len(piece)) for piece in pieces]


def test_packed_grouped_and_alone_have_the_same_loss(loss):
    expected, gradient = total(loss, alone(32))
    for rows in (1, 3):
        for unit in (None, 1, 6):
            value, found = total(loss, epoch(rows, unit))
            assert value == pytest.approx(expected, rel=1e-5)
            torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-4)


def test_shorter_rows_have_the_loss_of_their_pieces(loss):
    """A piece of a row knows nothing before it, but its last token still has a next one."""
    parts = epoch(2, length=8)
    expected = 0.0
    for rows in epoch(2):
        flat = [array.ravel() for array in (rows.input_ids, rows.position_ids, rows.labels)]
        starts = [i for i in range(len(flat[0])) if i % 8 == 0 or flat[1][i] == 0]
        for begin, end in zip(starts, [*starts[1:], len(flat[0])], strict=True):
            ids, labels = (torch.from_numpy(flat[k][None, begin:end].copy()) for k in (0, 2))
            expected += float(loss(ids, torch.arange(end - begin)[None], labels))
    assert total(loss, parts)[0] == pytest.approx(expected, rel=1e-5)
    assert Counts.of(parts).label_tokens == Counts.of(epoch(2)).label_tokens


@pytest.mark.parametrize("layout", [below, side_by_side])
@pytest.mark.parametrize(
    "pieces", [[[]], [[np.array([5])]], [[np.array([5])], [np.array([6]), np.array([7])]]]
)
def test_rows_without_any_label_are_worth_nothing(loss, layout, pieces):
    rows = layout(pieces, 16)
    assert (rows.labels == IGNORED).all()
    assert rows.counts.label_tokens == 0
    assert rows.counts.tokens == sum(map(len, pieces))
    assert rows.input_ids.size > 0  # every rank makes every forward pass
    value, gradient = total(loss, [rows])
    assert value == 0
    assert (gradient == 0).all()


def test_a_document_of_one_token_changes_no_other(loss):
    pair = np.array([3, 4, 5])
    one = np.array([9])
    expected, _ = total(loss, [side_by_side([[pair]], 16)])
    for pieces in ([one, pair], [pair, one], [one, pair, one]):
        assert total(loss, [side_by_side([pieces], 16)])[0] == pytest.approx(expected, rel=1e-6)
        assert total(loss, [below([pieces], 16)])[0] == pytest.approx(expected, rel=1e-6)
