"""Selective recomputation: equal gradients, fewer bytes, and no matrix product twice."""

from dataclasses import replace

import pytest
import torch
import transformers
from errors import user_error
from live_bytes import LiveBytes
from tiny import settings, stage_of
from torch.utils.flop_counter import FlopCounterMode

from hpc_llm.accounting import Architecture, step_flops
from hpc_llm.accounting.activations import held_activations
from hpc_llm.accounting.method import stage_method
from hpc_llm.surgery.trainable import make_trainable
from hpc_llm.training.kernels.attention import attend_by_document
from hpc_llm.training.kernels.layers import keep_less
from hpc_llm.training.kernels.losses import CausalLoss

ROWS, LENGTH = 2, 64
SIZES = {
    "model_type": "llama", "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "intermediate_size": 80, "vocab_size": 60,
    "max_position_embeddings": 64,
}  # fmt: skip
ARCHITECTURE = Architecture.from_config(SIZES)
KINDS = ["full", "embeddings", "lora", "lora-alone"]


def stage_and_model(kind, selective, **changes):
    stage = stage_of(kind.removesuffix("-alone"))
    if "lora" in kind:
        stage = replace(stage, rank=2, train_embeddings=kind == "lora")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**SIZES | changes)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.1)
    trainable = make_trainable(model.train(), stage, False, 1, selective=selective)
    for name, parameter in trainable.adapters.items():  # B starts at 0, and hides its products
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.manual_seed(len(name)))
    return stage, trainable


def backward(trainable, ours=False):
    loss = CausalLoss(trainable.model, trainable.causal)
    if ours:
        assert attend_by_document(trainable.causal)
        keep_less(trainable.causal)
    tokens = torch.randint(0, 60, (ROWS, LENGTH), generator=torch.manual_seed(1))
    positions = torch.arange(LENGTH).repeat(ROWS, 1)
    loss(tokens, positions, tokens).backward()
    return {name: p.grad for name, p in trainable.parameters.items()}


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_same_bits(kind, ours):
    plain, again = (backward(stage_and_model(kind, s)[1], ours) for s in (False, True))
    assert plain
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def counted(kind, selective):
    stage, trainable = stage_and_model(kind, selective)
    with FlopCounterMode(display=False) as counter:
        backward(trainable)
    method = stage_method(stage).recomputing("selective" if selective else "none")
    return counter.get_total_flops(), step_flops(ARCHITECTURE, method, ROWS, LENGTH)


@pytest.mark.parametrize("kind", KINDS)
def test_its_flops_are_those_of_the_counter(kind):
    """Compared as differences: the counter prices fused attention in its own way."""
    plain, again = (counted(kind, selective) for selective in (False, True))
    assert again[0] - plain[0] == again[1].total - plain[1].total
    assert (again[1].recompute > 0) == ("lora" in kind)
    assert again[1].recompute < 0.1 * again[1].forward


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_it_holds_the_bytes_of_the_formula(kind):
    """All that lives after the forward pass, beside weights and ends, within a tenth."""
    found, formula = [], []
    for selective in (False, True):
        stage, trainable = stage_and_model(kind, selective, vocab_size=8)
        tokens = torch.randint(0, 8, (ROWS, LENGTH))
        with LiveBytes() as bytes_now:
            loss = trainable.model(input_ids=tokens, labels=tokens, use_cache=False).loss
            found.append(bytes_now.now)
        del loss
        method = stage_method(stage).recomputing("selective" if selective else "none")
        arch = Architecture.from_config(SIZES | {"vocab_size": 8})
        formula.append(held_activations(arch, method, 4).layers * ROWS * LENGTH)
    assert found[1] < 0.8 * found[0]
    assert formula[1] < 0.8 * formula[0]
    assert found[0] - found[1] == pytest.approx(formula[0] - formula[1], rel=0.1)


def test_what_it_cannot_do_is_refused():
    with user_error("train.recompute", value="some"):
        settings("train.recompute=some")
    with user_error("train.recompute", "torch.compile", value="selective"):
        settings("train.recompute=selective", "train.compile=true")
    with user_error("train.recompute", "parallel.tensor", value="selective"):
        settings("train.recompute=selective", "parallel.tensor=2")


@pytest.mark.parametrize(("word", "value"), [("true", "full"), ("false", "none")])
def test_yes_and_no_are_full_and_none(word, value):
    assert settings(f"train.recompute={word}").train.recompute == value
