"""Evaluation mode without gradients, restored afterwards; models partitioned by ZeRO-3."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hpc_llm.accounting import context_length
from hpc_llm.training.process_group import device_of

__all__ = ["device_for", "idle_pass", "inference", "is_partitioned", "positions_of"]


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


def is_partitioned(model: torch.nn.Module) -> bool:
    """Whether ZeRO-3 partitions the parameters of `model`: its forward passes are collective."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def device_for(model: torch.nn.Module) -> torch.device:
    """Return the device of the inputs of `model`."""
    return device_of() if is_partitioned(model) else next(model.parameters()).device


def idle_pass(model: torch.nn.Module) -> None:
    """Run a partitioned model on one token, for the passes of other ranks (collective)."""
    with inference(model):
        model(input_ids=torch.zeros((1, 1), dtype=torch.int64, device=device_of()), use_cache=False)
