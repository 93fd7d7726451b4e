"""W = W0 + phi * lam * B A, `lam = alpha / r`, applied in memory.

The factor multiplies the output scale of every LoRA layer: nothing is merged, no weight is copied
and nothing is written, so evaluating a phi costs a forward pass only.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft.tuners.lora import LoraLayer

from hpc_llm.errors import UserError

__all__ = ["scaled"]


@contextmanager
def scaled(model: torch.nn.Module, phi: float) -> Iterator[None]:
    """Run `model` with merging factor `phi` inside the block; the scales are restored exactly.

    phi 0 is the model without its adapters, phi 1 the model as trained. Weights that were trained
    in full beside the adapters are unchanged. Raises `UserError` for a model without LoRA layers,
    for merged ones and for DoRA, whose norm makes the weight nonlinear in phi.
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
        raise UserError("phi", None, "the model has no LoRA layers", "attach its adapters")
    if any(layer.merged for layer in layers):
        raise UserError(
            "phi", None, "the adapters are merged into the weights", "give an unmerged model"
        )
    if any(any(layer.use_dora.values()) for layer in layers):
        raise UserError(
            "phi", None, "DoRA adapters have no merging factor", "train with plain LoRA"
        )
