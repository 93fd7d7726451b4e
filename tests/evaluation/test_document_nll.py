"""Losses of documents against a loop that predicts one token at a time."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from hpc_llm.evaluation import bits_per_byte
from hpc_llm.evaluation.bits_per_byte import document_nll, document_windows
from hpc_llm.settings import EvaluationSettings

SIZES = {"test_bytes": 10**6, "tune_bytes": 10**6}

BOS = 1
LENGTHS = [0, 1, 2, 7, 8, 9, 10, 16, 17, 31]


def settings(window=64, stride=32, batch_tokens=1000):
    return EvaluationSettings(window=window, stride=stride, batch_tokens=batch_tokens, **SIZES)


def documents(lengths, vocab_size=61):
    generator = np.random.default_rng(3)
    return [generator.integers(3, vocab_size, length).tolist() for length in lengths]


@torch.no_grad()
def token_nats(model, context, token):
    logits = model(input_ids=torch.tensor([context])).logits[0, -1].double()
    return float(torch.logsumexp(logits, 0) - logits[token])


def loop_nats(model, ids, window, stride):
    """One call for each token; context starts where the window that scores the token starts."""
    sequence, total = [BOS, *ids], 0.0
    for position in range(1, len(sequence)):
        blocks_behind = max(0, -(-(position - window) // stride))
        window_end = min(window + blocks_behind * stride, len(ids))
        start = max(0, window_end - window)
        total += token_nats(model, sequence[start:position], sequence[position])
    return total


def test_short_documents_equal_full_context(llama):
    texts = documents(LENGTHS)
    expected = []
    for ids in texts:
        sequence = [BOS, *ids]
        expected.append(
            sum(token_nats(llama, sequence[:i], sequence[i]) for i in range(1, len(sequence)))
        )
    nll = document_nll(llama, texts, settings(), BOS)
    assert nll.dtype == np.float64
    np.testing.assert_allclose(nll, expected, rtol=1e-5)
    assert nll[0] == 0


@pytest.mark.parametrize("stride", [1, 3, 8])
def test_sliding_window_equals_the_loop(llama, stride):
    texts = documents(LENGTHS)
    expected = [loop_nats(llama, ids, 8, stride) for ids in texts]
    nll = document_nll(llama, texts, settings(window=8, stride=stride), BOS)
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


def test_more_context_changes_the_loss(llama):
    """Else the comparisons above could not tell a wrong window from a right one."""
    texts = documents([31])
    wide = document_nll(llama, texts, settings(window=64), BOS)
    narrow = document_nll(llama, texts, settings(window=8, stride=8), BOS)
    assert abs(wide - narrow).item() > 0.1


@pytest.mark.parametrize(("window", "stride"), [(8, 8), (8, 3), (8, 1), (1, 1), (8, 20)])
def test_windows_score_each_prediction_once(window, stride):
    lengths = list(range(40))
    seen = [[] for _ in lengths]
    for w in document_windows(lengths, window, stride):
        assert 0 < w.length <= window
        assert w.length == min(window, lengths[w.document])  # as much context as there is room for
        assert w.begin <= w.scored < w.end
        seen[w.document] += range(w.scored, w.end)
    assert seen == [list(range(length)) for length in lengths]


@pytest.mark.parametrize("batch_tokens", [1, 20, 64, 100_000])
def test_batches_do_not_change_the_loss(llama, batch_tokens):
    """Padding on the right reaches no scored token, although no mask hides it."""
    texts = documents([60, 3, 17, 1, 44, 2, 30])
    alone = np.concatenate([document_nll(llama, [ids], settings(), BOS) for ids in texts])
    together = document_nll(llama, texts, settings(batch_tokens=batch_tokens), BOS)
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_chunks_do_not_change_the_loss(llama, monkeypatch):
    texts = documents([60, 3, 17])
    whole = document_nll(llama, texts, settings(), BOS)
    monkeypatch.setattr(bits_per_byte, "CHUNK_LOGITS", 5 * 61)
    monkeypatch.setattr(bits_per_byte, "LOGITS", 30 * 61)
    np.testing.assert_allclose(document_nll(llama, texts, settings(), BOS), whole, rtol=1e-6)


def test_logits_of_a_batch_stay_bounded(llama, monkeypatch):
    sizes = []
    llama.register_forward_hook(lambda module, given, output: sizes.append(output.logits.numel()))
    monkeypatch.setattr(bits_per_byte, "LOGITS", 40 * 61)
    document_nll(llama, documents([20] * 6), settings(batch_tokens=10_000), BOS)
    assert sizes == [40 * 61] * 3


def test_without_first_token_the_first_is_not_scored(llama):
    (ids,) = documents([12])
    expected = sum(token_nats(llama, ids[:i], ids[i]) for i in range(1, 12))
    nll = document_nll(llama, [ids, [], ids[:1]], settings(), None)
    np.testing.assert_allclose(nll, [expected, 0, 0], rtol=1e-5)


def test_window_never_exceeds_the_models_positions():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=61, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(config).eval()
    (ids,) = documents([50])
    nll = document_nll(model, [ids], settings(window=512, stride=5), BOS)
    np.testing.assert_allclose(nll, [loop_nats(model, ids, 16, 5)], rtol=1e-5)


def test_low_precision_logits_are_normalised_in_fp32(llama):
    (ids,) = documents([40])
    llama.bfloat16()
    with torch.no_grad():
        logits = llama(input_ids=torch.tensor([[BOS, *ids[:-1]]])).logits[0].double()
    expected = -logits.log_softmax(-1)[range(40), ids].sum()
    nll = document_nll(llama, [ids], settings(), BOS)
    np.testing.assert_allclose(nll, [expected], rtol=1e-6)


def test_peft_model_is_measured_like_its_base(llama):
    texts = documents([20, 5])
    base = document_nll(llama, texts, settings(), BOS)
    wrapped = get_peft_model(llama, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    np.testing.assert_array_equal(document_nll(wrapped, texts, settings(), BOS), base)


def test_modes_and_gradients_are_restored(llama):
    llama.train()
    llama.model.layers[0].eval()
    before = [module.training for module in llama.modules()]
    inside = []
    llama.model.layers[1].register_forward_hook(
        lambda module, given, output: inside.append((module.training, output.requires_grad))
    )
    document_nll(llama, [[5, 6]], settings(), BOS)
    outside_the_vocabulary = 10_000
    with pytest.raises(IndexError):
        document_nll(llama, [[outside_the_vocabulary, 5]], settings(), BOS)
    assert inside == [(False, False)]
    assert [module.training for module in llama.modules()] == before
    assert torch.is_grad_enabled()
    llama(input_ids=torch.tensor([[1, 5]])).logits.sum().backward()
    assert llama.lm_head.weight.grad is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu(llama):
    texts = documents(LENGTHS)
    expected = document_nll(llama, texts, settings(), BOS)
    nll = document_nll(llama.cuda(), texts, settings(), BOS)
    np.testing.assert_allclose(nll, expected, rtol=1e-4)
