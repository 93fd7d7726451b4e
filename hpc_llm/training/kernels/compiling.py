"""`train.compile`: compile the layers of the model with torch.compile, in place.

A layer compiled in place keeps its name, so checkpoints and adapters are unaffected; identical
layers share one compilation. Every choice that depends on a benchmark or on earlier compilations is
disabled, so a resumed stage computes the same bits.
"""

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from hpc_llm.errors import UserError

__all__ = ["compile_layers"]


def compile_layers(model: torch.nn.Module) -> int:
    """Compile each layer of `model` in place; return the number of layers.

    Raises `UserError` for a model whose layers are not recognised.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            "train.compile",
            "true",
            f"the layers of {type(model).__name__} are not recognised",
            "use train.compile=false",
        )
    torch._inductor.config.deterministic = True  # no autotuning of kernels
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # else it falls back to eager mode
    for layer in layers:
        layer.compile(dynamic=False)  # one graph per shape, independent of their order
    return len(layers)
