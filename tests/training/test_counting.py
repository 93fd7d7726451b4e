"""The check of the bill on the model itself, for families and methods as they are trained."""

import pytest
import torch
import transformers
from errors import user_error
from tiny import stage_of

from hpc_llm.accounting import Architecture, StageFlops, stage_method, step_flops
from hpc_llm.surgery.trainable import make_trainable
from hpc_llm.training.counting import counted_flops, known_costs, verify_flops
from hpc_llm.training.data.batches import BatchPlan

LLAMA = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "intermediate_size": 80}  # fmt: skip
FAMILIES = {
    "llama": LLAMA,
    "qwen2": LLAMA | {"tie_word_embeddings": True},
    "mixtral": LLAMA | {"num_local_experts": 4},
    "gemma2": LLAMA | {"head_dim": 16},
    "opt": {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 80,
            "word_embed_proj_dim": 48},
    "gpt2": {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64, "bos_token_id": 1,
             "eos_token_id": 1},
}  # fmt: skip
PLAN = BatchPlan(sequence_length=32, rows=4, micro_rows=2, accumulation=2, data_parallel=1)


def build(family, name, recompute=False):
    """A tiny model of a family, set up for a stage; its architecture and method."""
    stage = stage_of(name)
    config = transformers.AutoConfig.for_model(family, vocab_size=200, **FAMILIES[family])
    model = transformers.AutoModelForCausalLM.from_config(config)
    trainable = make_trainable(model.train(), stage, recompute, 1, new_rows=[5, 6])
    method = stage_method(stage, recompute=recompute)
    return trainable.model, Architecture.from_config(config.to_dict()), method


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", ["full", "embeddings", "head", "new_rows", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_formula_and_count_agree_on_the_model_that_trains(family, name, recompute):
    model, architecture, method = build(family, name, recompute)
    assert verify_flops(model, architecture, method, PLAN) > 0


def test_the_model_is_left_as_it_was():
    model, architecture, method = build("llama", "lora")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    attention = model.config._attn_implementation
    verify_flops(model, architecture, method, PLAN)
    for name, value in model.state_dict().items():
        assert type(value) is torch.Tensor
        assert torch.equal(value, before[name])
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.config._attn_implementation == attention != "eager"


def test_a_model_that_is_not_what_its_configuration_says_is_refused():
    model, architecture, method = build("llama", "full")
    model.model.layers[1].mlp.extra = torch.nn.Linear(48, 48, bias=False)
    forward = model.model.layers[1].mlp.forward
    model.model.layers[1].mlp.forward = lambda x: forward(x) + model.model.layers[1].mlp.extra(x)
    expected = counted_flops(build("llama", "full")[0], 2, 32)
    assert counted_flops(model, 2, 32) - expected == 3 * 2 * 48 * 48 * 64
    formula = step_flops(architecture, method, 2, 32, attention="dense").total
    with user_error("accounting.verify", f"{counted_flops(model, 2, 32):,}", f"{formula:,}"):
        verify_flops(model, architecture, method, PLAN)


def test_a_frozen_part_that_trains_all_the_same_is_noticed():
    model, architecture, method = build("llama", "embeddings")
    next(p for n, p in model.named_parameters() if "q_proj" in n).requires_grad_(True)
    with user_error("accounting.verify", "(x1.0"):
        verify_flops(model, architecture, method, PLAN)


def test_a_model_whose_forward_reads_numbers_is_not_verified_but_trains():
    stage = stage_of("lora")
    config = transformers.AutoConfig.for_model(
        "llama", vocab_size=200, max_position_embeddings=64, **LLAMA,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0},
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).train()
    trainable = make_trainable(model, stage, False, 1)
    architecture, method = Architecture.from_config(config.to_dict()), stage_method(stage)
    warnings: list[str] = []
    costs = known_costs(
        trainable.model, architecture, method, PLAN, verify=True, warn=warnings.append
    )
    assert costs == StageFlops.of(architecture, method, PLAN.sequence_length)
    assert len(warnings) == 1


def test_costs_of_a_model_that_its_formula_misses_are_counted():
    model, architecture, method = build("llama", "embeddings")
    next(p for n, p in model.named_parameters() if "q_proj" in n).requires_grad_(True)
    warnings: list[str] = []
    costs = known_costs(model, architecture, method, PLAN, verify=True, warn=warnings.append)
    assert costs.source == "counted"
    assert costs.hardware_per_sequence * 2 == counted_flops(model, 2, 32)
    assert "x1.0" in warnings[0]
