"""A model as it is measured: evaluation mode, no gradients, everything restored afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hpc_llm.accounting import context_length

__all__ = ["inference", "positions_of"]


@contextmanager
def inference(model: torch.nn.Module) -> Iterator[None]:
    """Put `model` into evaluation mode without gradients, and each module back as it was.

    `no_grad` rather than `inference_mode`: the model may go on training, and a buffer that it
    renewed in between must stay usable in a backward pass.
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
    """Return how many positions the model was made for; None: no limit (ALiBi)."""
    return context_length(model.config.to_dict())
