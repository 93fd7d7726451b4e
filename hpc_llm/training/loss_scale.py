"""The dynamic loss scale of fp16, which DeepSpeed adapts and a checkpoint must store.

fp16 overflows at 65,504 and underflows below 6e-8, so the loss is multiplied by a scale before the
backward pass (Micikevicius et al. 2018, arXiv 1710.03740). A step whose gradient overflows is
skipped and the scale halved; after many steps without overflow it is doubled.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["can_fall", "missing_factor", "read_loss_scale", "write_loss_scale"]

STATE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


def _scaler(engine: Any) -> Any:
    """The object that holds the scale, with or without ZeRO; None without dynamic loss scaling."""
    optimizer = engine.optimizer
    found = getattr(optimizer, "loss_scaler", None) or getattr(optimizer, "loss_scale_config", None)
    dynamic = getattr(found, "dynamic", False) or getattr(found, "dynamic_loss_scale", False)
    return found if dynamic else None


def can_fall(engine: Any) -> bool:
    """Return whether the loss scale is above its minimum, so that it may explain an overflow.

    At the minimum DeepSpeed would raise a bare exception or keep skipping steps; here the guards
    decide.
    """
    scaler = _scaler(engine)
    if scaler is None:
        return False
    scaler.raise_error_at_min_scale = False
    least = getattr(scaler, "min_scale", None) or getattr(scaler, "min_loss_scale", None) or 0
    return bool(scaler.cur_scale > least)


def missing_factor(engine: Any) -> float:
    """Return the factor to multiply the loss by before DeepSpeed's backward pass.

    Without ZeRO, DeepSpeed 0.19.8 divides the gradient by the scale but does not multiply the loss
    by it: underflow is not prevented, and gradients are 65,536 times too small to be clipped.
    """
    without_zero = getattr(engine.optimizer, "loss_scale_config", None)
    return 1.0 if without_zero is None else float(without_zero.cur_scale)


def read_loss_scale(engine: Any) -> dict[str, float]:
    """Return the state of the dynamic loss scale of a DeepSpeed engine; empty without one."""
    scaler = _scaler(engine)
    return {name: getattr(scaler, name) for name in STATE if hasattr(scaler, name)}


def write_loss_scale(engine: Any, state: Mapping[str, float]) -> None:
    """Restore a state from `read_loss_scale`, possibly of an engine of another ZeRO stage."""
    scaler = _scaler(engine)
    for name, value in state.items():
        if hasattr(scaler, name):
            setattr(scaler, name, value)
