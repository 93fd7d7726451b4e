"""The FLOPs of the trainer (freezing, adapters, fused loss) equal the accounted ones."""

from dataclasses import replace
from functools import cache

import pytest
import torch
import transformers
from tiny import stage_of
from torch.utils.flop_counter import FlopCounterMode

from hpc_llm.accounting import (
    Architecture,
    Method,
    stage_method,
    step_flops,
    trainable_parameters,
)
from hpc_llm.config import compose, typed
from hpc_llm.settings import RunConfig
from hpc_llm.surgery.trainable import make_trainable
from hpc_llm.training.kernels.losses import CausalLoss

ROWS, LENGTH = 2, 32
SIZES = {
    "model_type": "llama",
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "vocab_size": 200,
    "max_position_embeddings": 64,
}


@cache
def example() -> RunConfig:
    return typed(compose(["experiment=example"]))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", ["full", "embeddings", "head", "new_rows", "lora", "lora-alone"])
def test_a_step_of_the_trainer(name: str, tied: bool, recompute: bool, fused: bool) -> None:
    stage = stage_of(name.removesuffix("-alone"))
    if name == "lora-alone":
        stage = replace(stage, train_embeddings=False)
    config = SIZES | {"tie_word_embeddings": tied}
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config), attn_implementation="eager"
    )
    trainable = make_trainable(model.train(), stage, recompute, 1, new_rows=[3, 17, 150])
    arch, method = Architecture.from_config(config), stage_method(stage, recompute=recompute)
    held = sum(parameter.numel() for parameter in trainable.parameters.values())
    assert trainable_parameters(arch, method) == held
    if name == "new_rows":
        method = Method.new_rows(3, recompute=recompute)
        assert held == (1 if tied else 2) * 200 * 48
    assert trainable_parameters(arch, method) == trainable.count
    loss = CausalLoss(trainable.model, trainable.causal)
    loss.head = loss.head if fused else None
    tokens = torch.randint(0, 200, (ROWS, LENGTH))
    positions = torch.arange(LENGTH).repeat(ROWS, 1)
    with FlopCounterMode(display=False) as counter:
        loss(tokens, positions, tokens).backward()
    assert step_flops(arch, method, ROWS, LENGTH).total == counter.get_total_flops()
