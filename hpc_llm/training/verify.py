"""The bill checked before it is paid: FLOPs by the formula against a count on the model itself.

The model is copied onto fake tensors (shapes without numbers), so a model of any size takes no
memory and a few seconds; what ZeRO-3 has divided gets the shape of the whole. The counter sees
matrix products only under eager attention, and runs once, before the first step: its overhead is
half a step.
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

    `model` keeps its weights, its flags and its gradients as they are.
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
    """Return what `deepcopy` is to put in place of divided parameters: by `id`, of full shape."""
    return {
        id(p): torch.nn.Parameter(
            torch.empty(p.ds_shape, dtype=p.dtype, device=p.device), requires_grad=p.requires_grad
        )
        for p in model.parameters()
        if hasattr(p, "ds_id")
    }


def _make_eager(model: torch.nn.Module) -> None:
    """Let attention and experts run as plain matrix products, which the counter sees.

    Experts in batches have shapes that do not depend on which tokens go where.
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
    """Return the FLOPs of a micro-step of one rank, by formula and count alike.

    Raises `UserError` when they differ: the model is then not what its `config.json` says, or
    has parts that the formula does not know.
    """
    rows, length = plan.micro_rows, plan.sequence_length
    expected = step_flops(architecture, method, rows, length, attention="dense").total
    counted = counted_flops(model, rows, length)
    if counted != expected:
        raise UserError(
            "accounting.verify",
            None,
            f"a pass over {rows} rows of {length} tokens takes {counted:,} FLOPs by count on"
            f" the model, {expected:,} by the formula for {method.label} (x"
            f"{counted / expected:.4f}); the bill would be wrong by that",
            "go on all the same with accounting.verify=off",
        )
    logging.getLogger(__name__).debug("FLOPs verified: %d", counted)
    return counted
