"""What a GPU will run, as far as it can be checked without one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.initialization import no_init_weights

from hpc_llm.training.kernels.attention import attend_by_document
from hpc_llm.training.kernels.layers import keep_less
from hpc_llm.training.kernels.low_rank import join_adapters
from hpc_llm.training.kernels.products import speed_up_products
from hpc_llm.training.transfers import HostCopies, to_device

PROGRAM = Path(__file__).parent / "liger_loss.py"
NEEDED = ("liger_kernel", "triton")
VOCABULARY, IGNORED = 300, -100


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason="needs liger-kernel and triton: pip install liger-kernel triton",
)
def test_liger_kernel_gives_the_plain_loss(tmp_path):
    """The GPU's loss with its real kernel, run by triton's interpreter."""
    torch.manual_seed(0)
    labels = torch.randint(0, VOCABULARY, (12,))
    labels[::5] = IGNORED
    hidden, weight = 0.3 * torch.randn(12, 16), torch.randn(VOCABULARY, 16)
    torch.save({"hidden": hidden, "weight": weight, "labels": labels}, tmp_path / "inputs.pt")
    caps = [None, 5.0]
    command = [sys.executable, "-P", str(PROGRAM), str(tmp_path / "inputs.pt"), json.dumps(caps)]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    results = json.loads(ran.stdout.splitlines()[-1])
    for softcap, (loss, *gradients) in zip(caps, results, strict=True):
        exact = [t.double().requires_grad_() for t in (hidden, weight)]
        logits = exact[0] @ exact[1].T
        logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
        wanted = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        wanted.backward()
        assert loss == pytest.approx(float(wanted.detach()), rel=1e-5)
        for found, of in zip(gradients, exact, strict=True):
            torch.testing.assert_close(torch.tensor(found), of.grad.float(), rtol=1e-4, atol=1e-5)


@pytest.fixture
def on_gpu():
    """A model whose parameters say that they are on a GPU, without values."""
    config = LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=VOCABULARY, attn_implementation="sdpa",
    )  # fmt: skip
    with FakeTensorMode(), no_init_weights(), torch.device("cuda"):
        yield LlamaForCausalLM(config)


def test_what_speeds_up_a_cpu_leaves_a_gpu_alone(on_gpu):
    assert next(on_gpu.parameters()).is_cuda
    assert not attend_by_document(on_gpu)
    assert keep_less(on_gpu) == 0
    assert speed_up_products(on_gpu) == 0
    assert join_adapters(on_gpu) == 0


def test_fused_adamw_takes_parameters_of_a_gpu(on_gpu):
    for parameter in on_gpu.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(on_gpu.parameters(), fused=True)
    optimizer.step()
    states = [state for of in optimizer.state.values() for state in of.values()]
    assert all(state.is_cuda for state in states)


def test_a_cpu_reads_rows_in_place():
    rows = np.arange(6).reshape(2, 3)
    assert to_device(rows, torch.device("cpu")).data_ptr() == rows.ctypes.data


def test_host_copies_reuse_their_buffers():
    copies, value = HostCopies(), torch.arange(6.0).view(2, 3).T
    first = copies.copy("a", value)
    assert first.is_contiguous()
    assert torch.equal(first, value)
    value += 1
    assert not torch.equal(first, value)
    again = copies.copy("a", value)
    copies.wait()
    assert again.data_ptr() == first.data_ptr()
    assert torch.equal(again, value)
    assert copies.copy("a", value[:1]).shape == (1, 2)
