"""The arguments of flash attention's kernel for packed rows, with torch's attention in its place.

The kernel needs a GPU; what it is given does not. The functions here have the signature of
flash-attn 2 and compute each document by itself, from the cumulative lengths they are given.
"""

import families
import pytest
import torch
import torch.nn.functional as F
from transformers import modeling_flash_attention_utils as flash

from hpc_llm.training.kernels.attention import attend_by_document
from hpc_llm.training.kernels.packed import packed_inputs
from hpc_llm.training.probe import keeps_apart

KERNEL = ("llama", "mistral", "qwen3", "gemma2", "phi3", "olmo2", "granite", "cohere2")


def attend(q, k, v, causal, scale, window_size, softcap):
    """Attention of one document: (length, heads, d) each; written out, without torch's function."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * (scale or q.shape[-1] ** -0.5)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    ahead = torch.arange(len(k))[None] - torch.arange(len(q))[:, None]
    hidden = ahead > 0 if causal else torch.zeros_like(ahead, dtype=torch.bool)
    if window_size[0] >= 0:
        hidden = hidden | (-ahead > window_size[0])
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)


class Kernel:
    """The functions of flash-attn 2, and how often each was called."""

    def __init__(self):
        self.calls = {"dense": 0, "varlen": 0}

    def dense(
        self, q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1),
        softcap=0.0, alibi_slopes=None, deterministic=False,
    ):  # fmt: skip
        self.calls["dense"] += 1
        rows = zip(q, k, v, strict=True)
        return torch.stack(
            [attend(*row, causal, softmax_scale, window_size, softcap) for row in rows]
        )

    def varlen(
        self, q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
        softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
        deterministic=False, block_table=None,
    ):  # fmt: skip
        self.calls["varlen"] += 1
        assert q.dim() == 3
        assert cu_seqlens_q.dtype == torch.int32
        assert cu_seqlens_q.tolist() == cu_seqlens_k.tolist()
        assert cu_seqlens_q[0] == 0
        assert cu_seqlens_q[-1] == len(q)
        lengths = cu_seqlens_q.diff().tolist()
        assert min(lengths) > 0
        assert type(max_seqlen_q) is int  # a tensor would be read back in every layer
        assert max_seqlen_q == max_seqlen_k == max(lengths)
        parts = zip(*(t.split(lengths) for t in (q, k, v)), strict=True)
        return torch.cat(
            [attend(*part, causal, softmax_scale, window_size, softcap) for part in parts]
        )


@pytest.fixture
def kernel(monkeypatch):
    """Let transformers take the functions above for those of the flash-attn package."""
    made = Kernel()
    monkeypatch.setattr(flash, "_loaded_implementation", "flash_attention_2")
    monkeypatch.setattr(flash, "_flash_fn", made.dense)
    monkeypatch.setattr(flash, "_flash_varlen_fn", made.varlen)
    monkeypatch.setattr(
        flash, "_process_flash_kwargs_fn", flash._lazy_define_process_function(made.varlen)
    )
    return made


def with_flash(model):
    model.config.get_text_config()._attn_implementation = "flash_attention_2"
    return model.eval()


def rows_of(*documents):
    """Return ids and positions (rows, length): each argument holds the lengths in a row."""
    generator = torch.manual_seed(1)
    lengths = [sum(row) for row in documents]
    ids = torch.randint(9, 90, (len(documents), lengths[0]), generator=generator)
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in documents])
    return ids, positions


def alone(model, ids, positions):
    """Return the logits of every document by itself, in order: (tokens, vocabulary)."""
    found = []
    for row, places in zip(ids, positions, strict=True):
        begins = (places == 0).nonzero().flatten().tolist()
        for begin, end in zip(begins, [*begins[1:], len(row)], strict=True):
            found.append(model(input_ids=row[None, begin:end], use_cache=False).logits[0])
    return torch.cat(found)


@torch.no_grad()
@pytest.mark.parametrize("family", KERNEL)
def test_packed_rows_of_a_batch_stay_apart(family, kernel):
    model = with_flash(families.tiny_model(family))
    ids, positions = rows_of((5, 9, 2), (16,), (1, 15))
    found = model(**packed_inputs(model, ids, positions)).logits.flatten(0, 1)
    assert kernel.calls["varlen"]
    assert not kernel.calls["dense"]
    torch.testing.assert_close(found, alone(model, ids, positions), rtol=1e-4, atol=1e-4)
    assert keeps_apart(model, 2)


@torch.no_grad()
def test_the_kernel_gets_the_documents_that_ours_separates(kernel):
    ids, positions = rows_of((5, 9, 2), (16,), (1, 15))
    ours = families.tiny_model("llama").eval()
    assert attend_by_document(ours)
    theirs = with_flash(families.tiny_model("llama"))
    logits = [m(**packed_inputs(m, ids, positions)).logits for m in (ours, theirs)]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)
    assert kernel.calls["varlen"]


def test_gradients_pass_through_recomputed_layers(kernel):
    ids, positions = rows_of((5, 9, 2), (16,))
    gradients = []
    for recomputed in (False, True):
        model = with_flash(families.tiny_model("llama")).train()
        if recomputed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        logits = model(**packed_inputs(model, ids, positions)).logits
        F.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_other_kernels_get_positions_only():
    model = families.tiny_model("llama")
    inputs = packed_inputs(model, *rows_of((3, 5), (8,)))
    assert set(inputs) == {"input_ids", "position_ids", "use_cache"}
