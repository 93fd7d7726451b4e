"""Evaluation mode without gradients, restored afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hpc_llm.accounting import context_length

__all__ = ["inference", "positions_of"]


@contextmanager
def inference(model: torch.nn.Module) -> Iterator[None]:
    """Put `model` into evaluation mode without gradients; restore each module's mode afterwards.

    `no_grad` rather than `inference_mode`: training may continue with the model, and a buffer that
    was updated meanwhile must stay usable in a backward pass.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def positions_of(model: torch.nn.Module) -> int | None:
    """Return the maximum number of positions of the model; None: no limit (ALiBi)."""
    return context_length(model.config.to_dict())
