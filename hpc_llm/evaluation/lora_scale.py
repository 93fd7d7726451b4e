"""The merging factor phi applied in memory: W = W0 + phi (alpha / r) B A.

phi multiplies the scale of every LoRA layer: no weight is merged, copied or written, so trying a
phi costs one forward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hpc_llm.surgery.adapters import exact_lora

__all__ = ["scaled"]


@contextmanager
def scaled(model: torch.nn.Module, phi: float) -> Iterator[None]:
    """Run `model` with merging factor `phi` inside the block; restore the exact scales after it.

    phi=0 is the model without its adapter, phi=1 as trained. Weights that were trained in full
    beside the adapter stay as they are. Raises `UserError` for an adapter that is no linear
    function of phi (see `exact_lora`, which `merge_adapter` uses too).
    """
    layers = list(exact_lora(model).values())
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update({name: phi * scale for name, scale in scaling.items()})
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update(scaling)
