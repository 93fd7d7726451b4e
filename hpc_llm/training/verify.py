"""Verify the FLOPs formula against a count on the model itself, before training.

The model is copied onto fake tensors (shapes without data), so a model of any size takes no memory
and a few seconds; parameters partitioned by ZeRO-3 get their full shape. The counter sees the
matrix products of attention only in the eager implementation. It runs once, before the first step,
with an overhead of half a step.
"""

import copy
import logging
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from hpc_llm.accounting import Architecture, Method, step_flops
from hpc_llm.errors import UserError
from hpc_llm.training.data.batches import BatchPlan

__all__ = ["counted_flops", "verify_flops"]


def counted_flops(model: torch.nn.Module, rows: int, length: int) -> int:
    """Count the FLOPs of one forward and backward pass of `model` over (rows, length) tokens.

    Does not change the weights, flags and gradients of `model`.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        with FakeCopyMode(mode):
            fake = copy.deepcopy(model, _whole(model))
        _make_eager(fake)
        device = next(fake.parameters()).device
        tokens = torch.zeros((rows, length), dtype=torch.int64, device=device)
        with FlopCounterMode(display=False) as counter:
            logits = fake(input_ids=tokens, use_cache=False).logits
            logits.sum().backward()
        return int(counter.get_total_flops())


def _whole(model: torch.nn.Module) -> dict[int, Any]:
    """Return the `deepcopy` memo for partitioned parameters: by `id`, with their full shape."""
    return {
        id(p): torch.nn.Parameter(
            torch.empty(p.ds_shape, dtype=p.dtype, device=p.device), requires_grad=p.requires_grad
        )
        for p in model.parameters()
        if hasattr(p, "ds_id")
    }


def _make_eager(model: torch.nn.Module) -> None:
    """Run attention and experts as plain matrix products, which the counter sees.

    The shapes of batched experts do not depend on the routing of tokens.
    """
    seen: set[int] = set()
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if config is None or id(config) in seen or not hasattr(config, "_attn_implementation"):
            continue
        seen.add(id(config))
        config._attn_implementation = "eager"
        if hasattr(config, "_experts_implementation"):
            config._experts_implementation = "batched_mm"


def verify_flops(
    model: torch.nn.Module, architecture: Architecture, method: Method, plan: BatchPlan
) -> int:
    """Return the FLOPs of one gradient accumulation step of one rank, equal by formula and count.

    Raises `UserError` if they differ: the model does not match its `config.json`, or has parts
    that the formula does not cover.
    """
    rows, length = plan.micro_rows, plan.sequence_length
    expected = step_flops(architecture, method, rows, length, attention="dense").total
    counted = counted_flops(model, rows, length)
    if counted != expected:
        raise UserError(
            "accounting.verify",
            None,
            f"a forward and backward pass over {rows} sequences of {length} tokens takes "
            f"{counted:,} FLOPs counted on the model, {expected:,} by the formula for "
            f"{method.label} (x{counted / expected:.4f}); the cost report would be wrong by that "
            "factor",
            "use accounting.verify=off to continue anyway",
        )
    logging.getLogger(__name__).debug("FLOPs verified: %d", counted)
    return counted
