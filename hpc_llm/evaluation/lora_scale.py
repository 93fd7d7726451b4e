"""W = W0 + phi * lam * B A, `lam = alpha / r`, applied in memory.

The factor goes onto the scale that every LoRA layer multiplies its output by: nothing is merged,
no weight is copied and nothing is written, so trying a phi costs a forward pass only.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft.tuners.lora import LoraLayer

from hpc_llm.errors import UserError

__all__ = ["scaled"]


@contextmanager
def scaled(model: torch.nn.Module, phi: float) -> Iterator[None]:
    """Let `model` run with merging factor `phi` inside the block; the old scales come back exactly.

    phi 0 is the model without its adapters, phi 1 as trained. Weights that were trained in full
    beside the adapters stay as they are. Raises `UserError` for a model without LoRA layers, for
    merged ones and for DoRA, whose norm makes the weight no linear function of phi.
    """
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    _check_layers(layers)
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update({name: phi * scale for name, scale in scaling.items()})
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update(scaling)


def _check_layers(layers: list[LoraLayer]) -> None:
    if not layers:
        raise UserError("phi: the model has no LoRA layers; give a model with its adapters on")
    if any(layer.merged for layer in layers):
        raise UserError("phi: the adapters are merged into the weights; give an unmerged model")
    if any(any(layer.use_dora.values()) for layer in layers):
        raise UserError("phi: DoRA adapters have no merging factor; train with plain LoRA")
