"""Recompute activations in the backward pass: of whole layers, or of the cheap operations only.

Whole layers (Chen et al. 2016, arXiv 1604.06174) keep the inputs of layers. Selective recomputation
(Korthikanti et al. 2022, arXiv 2205.05198) keeps what is costly to compute, here the outputs of
matrix products and of fused attention; norms, rotations and activations are computed again. The
products of an adapter's second factor are as large as those of the layer, and cheap: they are
computed again, too.
"""

from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import PreTrainedModel

__all__ = ["recompute_layers", "recompute_selectively"]

PRODUCTS = ("aten::mm", "aten::addmm")
COSTLY = (
    "aten::bmm",
    "aten::baddbmm",
    "aten::_grouped_mm",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "flash_attn::_flash_attn_forward",
    "flash_attn::_flash_attn_varlen_forward",
)


def recompute_layers(model: PreTrainedModel) -> None:
    """Keep the inputs of the layers of `model` only."""
    model.gradient_checkpointing_enable({"use_reentrant": False})


def recompute_selectively(model: PreTrainedModel, rank: int) -> None:
    """Keep the inputs of layers, and the outputs of products over more than `rank` numbers."""
    contexts = partial(create_selective_checkpoint_contexts, partial(_policy, rank))
    model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})


def _policy(rank: int, context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    name = op.name().partition(".")[0]
    if name in PRODUCTS:
        summed = args[-1] if name == "aten::mm" else args[2]  # the second factor (summed, out)
        kept = isinstance(summed, torch.Tensor) and summed.shape[0] > rank
    else:
        kept = name in COSTLY
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
