"""What tensor parallelism splits: families, sizes and parameters."""

import pytest
from errors import user_error
from transformers import AutoConfig, AutoModelForCausalLM

from hpc_llm.accounting.architecture import Architecture
from hpc_llm.accounting.tensor import FAMILIES, check_tensor, split_parameters

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 40,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}  # fmt: skip
WHOLE = ("replicated_with_grad_allreduce",)


def built(family, **others):
    return AutoConfig.for_model(family, **SIZES, **others)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_splits_what_the_plan_of_transformers_splits(family):
    config = built(family)
    plan = {key.split(".")[-1]: style for key, style in config.base_model_tp_plan.items()}
    assert set(plan.values()) <= {"colwise", "rowwise", *WHOLE}
    expected = 0
    for name, weight in AutoModelForCausalLM.from_config(config).named_parameters():
        *_, layer, kind = name.split(".")
        style = plan.get(layer, WHOLE[0])
        expected += weight.numel() * (style == "colwise" or (style == "rowwise" and kind != "bias"))
    assert split_parameters(Architecture.from_config(config.to_dict())) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_that_two_ranks_divide(family):
    check_tensor(built(family).to_dict(), 2)


@pytest.mark.parametrize(
    ("size", "value"),
    [("num_attention_heads", 6), ("num_key_value_heads", 2), ("intermediate_size", 42)],
)
def test_sizes_that_the_ranks_do_not_divide(size, value):
    config = built("llama").to_dict() | {"num_key_value_heads": 4, "num_attention_heads": 8}
    config |= {size: value} | ({"num_key_value_heads": 6} if value == 6 else {})
    with user_error("parallel.tensor", size, value, value=4):
        check_tensor(config, 4)


def test_families_without_a_plan():
    with user_error("parallel.tensor", "gpt2", "llama", value=2):
        check_tensor({"model_type": "gpt2"}, 2)
    check_tensor({"model_type": "gpt2"}, 1)
