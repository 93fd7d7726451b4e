"""What tensor parallelism splits over its ranks (Shoeybi et al. 2019, arXiv 1909.08053, section 3).

Queries, keys, values and the inner matrices of the MLP are split by their outputs, so each rank has
whole heads; the output matrices of attention and MLP are split by their inputs, and an all-reduce
adds up their results. Embeddings, LM head and norms are whole on every rank.
"""

from collections.abc import Mapping
from typing import Any

from hpc_llm.accounting.architecture import Architecture, parameter_count
from hpc_llm.errors import UserError

__all__ = ["check_tensor", "split_parameters"]

FAMILIES = ("gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3")
SIZES = {
    "num_heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "ffn_size": "intermediate_size",
}


def check_tensor(config: Mapping[str, Any], ranks: int) -> None:
    """Raise `UserError` if `ranks` cannot split the model of a `config.json` evenly."""
    if ranks == 1:
        return
    key, family = "parallel.tensor", config.get("model_type")
    if family not in FAMILIES:
        rule = f"does not split the layers of model_type={family}"
        known = ", ".join(FAMILIES)
        raise UserError(key, ranks, rule, f"use {key}=1, or a model of {known}")
    arch = Architecture.from_config(config)
    for name, written in SIZES.items():
        if (size := getattr(arch, name)) % ranks:
            fix = f"use a divisor of it, or {key}=1"
            raise UserError(key, ranks, f"must divide {written}={size} of the model", fix)


def split_parameters(arch: Architecture) -> int:
    """Count the parameters that are split; the others are whole on every rank."""
    count, h = parameter_count(arch), arch.hidden_size
    whole = arch.output_bias + arch.mlp_bias  # added to the sum over the ranks
    return count.body - count.norms - arch.num_layers * whole * h
