"""What only a GPU can show: precisions, flash attention and the fused loss on CUDA, all tiny."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from hpc_llm.launch import run_ranks
from hpc_llm.training.kernels import losses
from hpc_llm.training.kernels.attention import attend_by_document
from hpc_llm.training.kernels.layers import keep_less
from hpc_llm.training.kernels.losses import CausalLoss, linear_cross_entropy
from hpc_llm.training.kernels.packed import packed_inputs
from hpc_llm.training.kernels.products import speed_up_products
from hpc_llm.training.transfers import HostCopies, to_device

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

PROGRAM = Path(__file__).parent / "train_tiny.py"
VOCABULARY = 3000


def test_every_precision_and_stage_learns_as_fp32_does(capfd, tmp_path):
    kinds = [("fp32", 0), *((p, stage) for p in ("bf16", "fp16") for stage in (1, 2, 3))]
    tasks = [
        {"precision": precision, "zero": stage, "method": "full", "folder": f"{tmp_path}/{i}"}
        for i, (precision, stage) in enumerate(kinds)
    ]
    capfd.readouterr()
    ended = run_ranks([json.dumps(tasks)], 1, os.environ, command=[sys.executable, str(PROGRAM)])
    said = capfd.readouterr()
    assert ended == 0, said.err[-3000:]
    lines = [line for line in said.out.splitlines() if line.startswith("[")]
    exact, *others = (result["losses"] for result in json.loads(lines[-1]))
    assert exact[-1] < exact[0]
    for kind, found in zip(kinds[1:], others, strict=True):
        assert found[0] == pytest.approx(exact[0], rel=0.01), kind
        assert found[-1] == pytest.approx(exact[-1], rel=0.03), kind


def small_llama(attention):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=VOCABULARY, attn_implementation=attention,
        dtype=torch.bfloat16,
    )  # fmt: skip
    return LlamaForCausalLM(config).to("cuda", torch.bfloat16).train()


@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2"])
def test_packed_documents_do_not_see_each_other(attention):
    if attention == "flash_attention_2":
        pytest.importorskip("flash_attn")
    model = small_llama(attention)
    lengths = (50, 9, 1, 68)
    ids = torch.randint(0, VOCABULARY, (2, sum(lengths)), device="cuda")
    positions = torch.cat([torch.arange(n) for n in lengths]).expand(2, -1).cuda()
    packed = model(**packed_inputs(model, ids, positions)).logits
    apart = [model(input_ids=part, use_cache=False).logits for part in ids.split(lengths, 1)]
    together = model(input_ids=ids, use_cache=False).logits
    error = (packed - torch.cat(apart, 1)).float().norm()
    assert error < 0.1 * (packed - together).float().norm()


@pytest.mark.parametrize("with_liger", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_fused_loss_is_the_plain_one(dtype, with_liger, monkeypatch):
    if with_liger:
        pytest.importorskip("liger_kernel")
    else:
        monkeypatch.setattr(losses, "_liger", lambda: None)
        monkeypatch.setattr(losses, "CHUNK_ELEMENTS", 10 * VOCABULARY)
    torch.manual_seed(0)
    labels = torch.randint(0, VOCABULARY, (1000,), device="cuda")
    labels[::5] = losses.IGNORED
    hidden = (0.3 * torch.randn(1000, 64, device="cuda")).to(dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, 64, device="cuda").to(dtype).requires_grad_()
    exact = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    wanted = F.cross_entropy(exact[0] @ exact[1].T, labels, ignore_index=-100, reduction="sum")
    wanted.backward()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = linear_cross_entropy(hidden, weight, labels)
    loss.backward()
    assert torch.cuda.max_memory_allocated() - before < 4 * 1000 * VOCABULARY
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-3)
    for one, other in zip((hidden, weight), exact, strict=True):
        assert (one.grad - other.grad).norm() < 0.02 * other.grad.norm()


def test_what_speeds_up_a_cpu_stays_away():
    model = small_llama("sdpa")
    assert not attend_by_document(model)
    assert keep_less(model) == 0
    assert speed_up_products(model) == 0
    ids = torch.randint(0, VOCABULARY, (2, 16), device="cuda")
    positions = torch.arange(16, device="cuda").expand(2, 16)
    loss = CausalLoss(model, model)(ids, positions, ids)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_transfers_keep_their_values():
    rows = np.arange(2**20).reshape(2, -1)
    on_gpu = to_device(rows, torch.device("cuda"))
    assert torch.equal(on_gpu.cpu(), torch.from_numpy(rows))
    copies = HostCopies()
    copy = copies.copy("a", on_gpu.T)
    copies.wait()
    assert copy.is_pinned()
    assert torch.equal(copy, torch.from_numpy(rows).T)
