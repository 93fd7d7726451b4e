"""W = W0 + phi * lam * B A, `lam = alpha / r`, applied in memory.

The factor multiplies the output scale of every LoRA layer: nothing is merged, no weight is copied
and nothing is written, so evaluating a phi costs a forward pass only.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hpc_llm.surgery.adapters import mergeable_layers

__all__ = ["scaled"]


@contextmanager
def scaled(model: torch.nn.Module, phi: float) -> Iterator[None]:
    """Run `model` with merging factor `phi` inside the block; the scales are restored exactly.

    phi 0 is the model without its adapters, phi 1 the model as trained. Weights that were trained
    in full beside the adapters are unchanged. Raises `UserError` for adapters whose change is not
    linear in phi: see `hpc_llm.surgery.adapters`.
    """
    layers = mergeable_layers(model)
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update({name: phi * scale for name, scale in scaling.items()})
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update(scaling)
