"""`train.compile`: the layers of the model compiled by torch.compile, each in its place.

Compiled in place a layer keeps its name, so checkpoints and adapters know nothing of it, and as
the layers are alike all of them share one compilation. Every choice that would depend on a
measurement or on what was compiled before is turned off: a stage that is resumed computes
the same bits.
"""

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from hpc_llm.errors import UserError

__all__ = ["compile_layers"]


def compile_layers(model: torch.nn.Module) -> int:
    """Compile each layer of `model` in place; return how many there are.

    Raises `UserError` for a model whose layers are not known.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            "train.compile",
            "true",
            f"{type(model).__name__} has no layers that are known",
            "give train.compile=false",
        )
    torch._inductor.config.deterministic = True  # no choice of a kernel by its speed
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # else it goes on uncompiled
    for layer in layers:
        layer.compile(dynamic=False)  # each shape by itself, whichever came first
    return len(layers)
