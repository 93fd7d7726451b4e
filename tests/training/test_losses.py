"""The fused cross-entropy against torch's, and the whole loss of a packed batch."""

import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from hpc_llm.training import losses
from hpc_llm.training.losses import CausalLoss, linear_cross_entropy


@pytest.fixture
def parts():
    torch.manual_seed(0)
    hidden = torch.randn(37, 8, requires_grad=True)
    weight = torch.randn(50, 8, requires_grad=True)
    labels = torch.randint(0, 50, (37,))
    labels[::5] = losses.IGNORED
    return hidden, weight, labels


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_loss_and_gradients_equal_torch(parts, rows, monkeypatch):
    hidden, weight, labels = parts
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", rows * 50)
    expected = F.cross_entropy(hidden @ weight.T, labels, ignore_index=-100, reduction="sum")
    wanted = torch.autograd.grad(expected * 0.3, (hidden, weight))
    loss = linear_cross_entropy(hidden, weight, labels)
    found = torch.autograd.grad(loss * 0.3, (hidden, weight))
    torch.testing.assert_close(loss, expected)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_frozen_head_gets_no_gradient(parts):
    hidden, weight, labels = parts
    loss = linear_cross_entropy(hidden, weight.detach(), labels)
    loss.backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_a_batch_without_labels_has_no_loss_and_no_gradient(parts):
    hidden, weight, labels = parts
    loss = linear_cross_entropy(hidden, weight, torch.full_like(labels, -100))
    loss.backward()
    assert loss == 0
    assert hidden.grad.abs().max() == 0


def tiny_llama(**settings):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=40, max_position_embeddings=32, **settings,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_documents_do_not_see_each_other(attention):
    model = tiny_llama(attn_implementation=attention)
    documents = [torch.randint(0, 40, (n,)) for n in (5, 9, 1, 7)]
    packed = torch.cat([*documents, torch.zeros(3, dtype=torch.long)])[None]
    positions = torch.cat([torch.arange(len(d)) for d in [*documents, torch.zeros(3)]])[None]
    for training in (True, False):
        model.train(training)
        together = model(input_ids=packed, position_ids=positions, use_cache=False).logits[0]
        start = 0
        for document in documents:
            alone = model(input_ids=document[None], use_cache=False).logits[0]
            torch.testing.assert_close(
                together[start : start + len(document)], alone, rtol=1e-4, atol=2e-6
            )
            start += len(document)


@pytest.mark.parametrize("tied", [True, False])
def test_the_fused_path_equals_the_plain_one(tied):
    model = tiny_llama(tie_word_embeddings=tied)
    ids = torch.randint(0, 40, (2, 12))
    positions = torch.arange(12).remainder(5).expand(2, 12)
    labels = ids.roll(-1, 1).masked_fill(positions.roll(-1, 1) == 0, -100)
    results = []
    for zero_stage in (1, 3):
        model.zero_grad()
        module = CausalLoss(model, model, zero_stage)
        assert module.fused == (zero_stage < 3)
        loss = module(ids, positions, labels)
        loss.backward()
        results.append((loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}))
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-5)
