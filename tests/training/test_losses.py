"""The fused cross-entropy against torch's, and the whole loss of a packed batch."""

import pytest
import torch
import torch.nn.functional as F
from live_bytes import LiveBytes
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from hpc_llm.training.kernels import losses
from hpc_llm.training.kernels.heads import Head
from hpc_llm.training.kernels.losses import CausalLoss, linear_cross_entropy


@pytest.fixture
def parts():
    torch.manual_seed(0)
    hidden = torch.randn(37, 8, requires_grad=True)
    weight = torch.randn(50, 8, requires_grad=True)
    labels = torch.randint(0, 50, (37,))
    labels[::5] = losses.IGNORED
    return hidden, weight, labels


@pytest.mark.parametrize("head", [Head(), Head(scale=0.4), Head(softcap=3.0)], ids=str)
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_loss_and_gradients_equal_torch(parts, rows, head, monkeypatch):
    hidden, weight, labels = parts
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", rows * 50)
    logits = head.logits(hidden @ weight.T)
    expected = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
    wanted = torch.autograd.grad(expected * 0.3, (hidden, weight))
    loss = linear_cross_entropy(hidden, weight, labels, head)
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


def test_a_gradient_that_is_taken_twice_is_refused(parts):
    loss = linear_cross_entropy(*parts)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_is_fp32_in_lower_precisions(dtype):
    torch.manual_seed(0)
    hidden = torch.randn(3000, 8).to(dtype).requires_grad_()
    weight = (torch.randn(500, 8) * 2).to(dtype).requires_grad_()
    labels = torch.randint(0, 500, (3000,))
    exact = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    expected = F.cross_entropy(exact[0] @ exact[1].T, labels, reduction="sum")
    expected.backward()
    loss = linear_cross_entropy(hidden, weight, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)  # half precision: 3e-2 at best
    loss.backward()
    for tensor, other, most in zip(
        (hidden, weight), exact, rounding(*exact, labels, dtype), strict=True
    ):
        assert ((tensor.grad.double() - other.grad).abs() <= most).all()


def rounding(hidden, weight, labels, dtype):
    """Bounds of the gradients' errors, entry by entry, whatever order a CPU sums in.

    With unit roundoff u, logits z are off by u |z|, so softmax p by a factor within 1 + 2 u max|z|;
    p - onehot is stored with u, and so are the gradients, which are summed in fp32.
    """
    u = torch.finfo(dtype).eps / 2
    z = (hidden @ weight.T).detach()
    p = z.softmax(-1)
    stored = (p - F.one_hot(labels, z.shape[1])).abs()
    off = p * (torch.exp(2 * u * z.abs().amax(-1, keepdim=True)) - 1) + 2 * u * stored
    sums = (off @ weight.abs(), off.T @ hidden.abs())
    return [
        total + 3 * u * (tensor.grad.abs() + total) + 1e-6
        for total, tensor in zip(sums, (hidden, weight), strict=True)
    ]


@pytest.mark.parametrize("trained", [True, False])
def test_no_full_logits_are_ever_alive(trained, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", 32 * 5000)
    tokens, vocabulary, width = 512, 5000, 16
    labels = torch.randint(0, vocabulary, (tokens,))
    peaks = []
    for compute in (linear_cross_entropy, plain_cross_entropy):
        hidden = torch.randn(tokens, width, requires_grad=True)
        weight = torch.randn(vocabulary, width, requires_grad=trained)
        with LiveBytes() as live:
            compute(hidden, weight, labels).backward()
        peaks.append(live.peak)
    logits, rows = 4 * tokens * vocabulary, 4 * 32 * vocabulary
    heads = 4 * vocabulary * width * trained
    assert peaks[1] >= 2 * logits
    assert peaks[0] <= 2 * rows + heads + 4 * 4 * tokens * width
    assert peaks[0] < 0.2 * peaks[1]


def plain_cross_entropy(hidden, weight, labels):
    return F.cross_entropy(hidden @ weight.T, labels, ignore_index=-100, reduction="sum")


@pytest.mark.gpu
@pytest.mark.parametrize("head", [Head(), Head(scale=0.4), Head(softcap=3.0)], ids=str)
@pytest.mark.parametrize("trains", ["both", "hidden", "weight"])
def test_on_a_gpu_liger_gives_the_same(trains, head, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    pytest.importorskip("liger_kernel")
    torch.manual_seed(0)
    labels = torch.randint(0, 3000, (700,), device="cuda")
    labels[::5] = losses.IGNORED
    hidden = torch.randn(700, 64, device="cuda", requires_grad=trains != "weight")
    weight = torch.randn(3000, 64, device="cuda", requires_grad=trains != "hidden")
    results = []
    for without in (False, True):
        if without:
            monkeypatch.setattr(losses, "_liger", lambda: None)
        loss = linear_cross_entropy(hidden, weight, labels, head)
        learning = [t for t in (hidden, weight) if t.requires_grad]
        results.append((loss, *torch.autograd.grad(loss * 0.3, learning)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


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


MODELS = {
    "tied": (LlamaConfig, {"tie_word_embeddings": True}),
    "untied": (LlamaConfig, {"tie_word_embeddings": False}),
    "softcap": (Gemma2Config, {"head_dim": 8, "final_logit_softcapping": 2.0}),
    "scale": (GraniteConfig, {"logits_scaling": 4.0, "pad_token_id": 0}),
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_fused_path_equals_the_plain_one(name, frozen):
    torch.manual_seed(0)
    kind, settings = MODELS[name]
    config = kind(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=40, max_position_embeddings=32, **settings,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    torch.nn.init.normal_(model.get_output_embeddings().weight)
    model.get_output_embeddings().requires_grad_(not frozen)
    ids = torch.randint(0, 40, (2, 12))
    positions = torch.arange(12).remainder(5).expand(2, 12)
    labels = ids.roll(-1, 1).masked_fill(positions.roll(-1, 1) == 0, -100)
    results = []
    for fused in (True, False):
        model.zero_grad()
        module = CausalLoss(model, model)
        assert module.head is not None
        module.head = module.head if fused else None
        loss = module(ids, positions, labels)
        loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        results.append((loss.detach(), {n: g.clone() for n, g in gradients.items()}))
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-5)
