"""Count FLOPs on the model itself: the check of the closed form, and the cost where it has none.

The model is copied onto fake tensors (shapes without data), so a model of any size takes no memory
and a few seconds; parameters partitioned by ZeRO-3 get their full shape. The counter sees the
matrix products of attention only in the eager implementation. It runs once, before the first step,
with an overhead of half a step.
"""

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from hpc_llm.accounting import Architecture, Count, Method, StageFlops, step_flops
from hpc_llm.errors import UserError
from hpc_llm.surgery.loading import full_shape
from hpc_llm.training.data.batches import BatchPlan

__all__ = [
    "CannotCount",
    "active_parameters",
    "count_costs",
    "counted_flops",
    "known_costs",
    "verify_flops",
]


class CannotCount(Exception):
    """The forward pass fails on shapes alone: it reads values (routing by loops, dynamic RoPE)."""


def counted_flops(model: torch.nn.Module, rows: int, length: int, *, recompute: bool = True) -> int:
    """Count the FLOPs of one forward and backward pass of `model` over (rows, length) tokens.

    Does not change the weights, flags and gradients of `model`. `recompute=False` counts without
    gradient checkpointing. Raises `CannotCount`.
    """
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            with FakeCopyMode(mode):
                fake = copy.deepcopy(model, _whole(model))
            _make_eager(fake)
            if not recompute:
                _save_everything(fake)
            return _count(fake, rows, length)
    except Exception as error:  # what a family does with shapes alone must not stop its training
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CannotCount(text) from error


def _count(fake: torch.nn.Module, rows: int, length: int) -> int:
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


def _save_everything(model: torch.nn.Module) -> None:
    """Switch gradient checkpointing off."""
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = False


def count_costs(model: torch.nn.Module, length: int) -> StageFlops:
    """Return the costs of a stage by counts over one sequence of `length` tokens and of half.

    `model` is set up for training, with its adapters. Raises `CannotCount`.
    """
    recomputes = any(getattr(m, "gradient_checkpointing", False) for m in model.modules())

    def count(tokens: int) -> Count:
        plain = counted_flops(model, 1, tokens, recompute=False)
        executed = counted_flops(model, 1, tokens) if recomputes else plain
        return Count(length=tokens, model=plain, hardware=executed)

    return StageFlops.counted(count(max(1, length // 2)), count(length), active_parameters(model))


def active_parameters(model: torch.nn.Module) -> int:
    """Return the parameters used per token: of stacked experts those that a token is routed to."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    names = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_k", "moe_topk")
    chosen = next((n for name in names if isinstance(n := getattr(text, name, None), int)), None)
    active = 0
    for parameter in model.parameters():
        shape = full_shape(parameter)
        stacked = len(shape) == 3 and chosen is not None and chosen < shape[0]
        active += shape.numel() // shape[0] * chosen if stacked else shape.numel()
    return active


def verify_flops(
    model: torch.nn.Module, architecture: Architecture, method: Method, plan: BatchPlan
) -> int:
    """Return the FLOPs of one gradient accumulation step of one rank, equal by formula and count.

    Raises `UserError` if they differ: the model does not match its `config.json`, or has parts
    that the formula does not cover. Raises `CannotCount`.
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
            f"{method.label} (x{counted / expected:.4f})",
            "costs are counted on the model",
        )
    logging.getLogger(__name__).debug("FLOPs verified: %d", counted)
    return counted


def known_costs(
    model: torch.nn.Module,
    architecture: Architecture | None,
    method: Method,
    plan: BatchPlan,
    *,
    verify: bool,
    warn: Callable[[str], None],
) -> StageFlops:
    """Return the costs of a stage: by the formula if there is one and it holds, else by a count.

    `architecture` is None for a family without a formula. What cannot be counted costs 6 N per
    token. `warn` gets one line for everything that is not exact.
    """
    if architecture is not None and (
        not verify or _formula_holds(model, architecture, method, plan, warn)
    ):
        return StageFlops.of(architecture, method, plan.sequence_length)
    try:
        return count_costs(model, plan.sequence_length)
    except CannotCount as error:
        warn(f"FLOPs estimated as 6 N per token: {error}")
        return StageFlops.estimated(active_parameters(model), plan.sequence_length)


def _formula_holds(
    model: torch.nn.Module,
    architecture: Architecture,
    method: Method,
    plan: BatchPlan,
    warn: Callable[[str], None],
) -> bool:
    """Whether the count on the model does not contradict the formula."""
    try:
        verify_flops(model, architecture, method, plan)
    except CannotCount as error:
        warn(f"FLOPs by the formula, not verified on the model: {error}")
    except UserError as error:
        warn(str(error))
        return False
    return True
