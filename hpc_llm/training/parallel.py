"""Models whose sequences can be split over ranks. Imports no torch: checked before a job starts."""

from collections.abc import Mapping
from typing import Any

from hpc_llm.errors import UserError

__all__ = ["MODELS", "check_sequence_parallel"]

MODELS = (
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
)
"""Families that pass position_ids down and whose attention is the standard one."""


def check_sequence_parallel(config: Mapping[str, Any], size: int) -> None:
    """Raise `UserError` if `size` ranks cannot split the sequences of a model.

    `config` is its `config.json` as a mapping. Each rank attends with its share of the heads.
    """
    if size == 1 or not config:
        return
    kind = config.get("model_type")
    window = config.get("use_sliding_window", True) and config.get("sliding_window")
    if kind not in MODELS or window:
        what = f"sliding_window={window} of {kind}" if kind in MODELS else f"model_type={kind}"
        rule = f"{what}: only full attention of {', '.join(MODELS)} can be split"
        raise UserError("parallel.sequence", size, rule, "use parallel.sequence=1")
    heads = int(config["num_attention_heads"])
    shared = int(config.get("num_key_value_heads") or heads)
    if heads % size or (shared % size and size % shared):
        raise UserError(
            "parallel.sequence",
            size,
            f"must divide the {heads} attention heads, and divide or be a multiple of the {shared} "
            "key-value heads",
            f"use {' or '.join(map(str, _fitting(heads, shared)))}",
        )


def _fitting(heads: int, shared: int) -> list[int]:
    """Return the sizes that a model allows."""
    divisors = [size for size in range(1, heads + 1) if heads % size == 0]
    return [size for size in divisors if shared % size == 0 or size % shared == 0]
