"""Exact sums of LoRA adapters.

Adapter i adds D_i = s_i B_i A_i to a weight (out, in), with A_i (r_i, in), B_i (out, r_i) and scale
s_i. The sum of w_i D_i is one adapter of rank R, the sum of r_i: its factors are those of the
adapters side by side. Averaging the A_i and the B_i instead has cross terms B_i A_j, as `linear`
of peft's `add_weighted_adapter` has.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch

from hpc_llm.ensembles import Adapters
from hpc_llm.errors import UserError

__all__ = ["Factors", "weighted_sum"]


class Factors(NamedTuple):
    """The change of one weight, scale * b @ a (out, in)."""

    a: torch.Tensor
    """(r, in)."""
    b: torch.Tensor
    """(out, r)."""
    scale: float = 1.0
    """alpha / r; alpha / sqrt(r) for rsLoRA."""


def weighted_sum(adapters: Adapters, weights: Mapping[str, float]) -> dict[str, Factors]:
    """Return the factors of the sum of w_i s_i B_i A_i for each layer that any adapter has.

    An adapter without a layer adds nothing to it. sqrt(|w_i s_i|) is put on both factors, so that
    their norms balance, and the sign on A; the scale of the result is 1. Computed in fp32.
    Raises `UserError` without adapters and where they were made for layers of different sizes.
    """
    if not adapters:
        raise UserError("compose.adapters", "{}", "must name adapters", "use {NAME: FOLDER, ...}")
    names = sorted({layer for layers in adapters.values() for layer in layers})
    return {layer: _concatenated(layer, adapters, weights) for layer in names}


def _concatenated(layer: str, adapters: Adapters, weights: Mapping[str, float]) -> Factors:
    parts = {name: layers[layer] for name, layers in adapters.items() if layer in layers}
    sizes = {name: (part.b.shape[0], part.a.shape[1]) for name, part in parts.items()}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} {out}x{width}" for name, (out, width) in sizes.items())
        rule = f"{layer} has different sizes (out x in): {found}"
        raise UserError("compose.adapters", None, rule, "combine adapters of one base model")
    rows, columns = [], []
    for name, part in parts.items():
        factor = weights[name] * part.scale
        root = abs(factor) ** 0.5
        rows.append((root if factor >= 0 else -root) * part.a.float())
        columns.append(root * part.b.float())
    return Factors(torch.cat(rows), torch.cat(columns, dim=1))  # (R, in), (out, R)
