"""The loss scale of fp16: what DeepSpeed adapts from step to step, and a checkpoint has to keep.

fp16 ends at 65,504 and loses what is below 6e-8, so the loss is multiplied by a scale before its
gradient is taken (Micikevicius et al. 2018, arXiv 1710.03740). A step whose gradient overflows is
skipped and the scale halved; after many steps without that it is doubled.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["can_fall", "missing_factor", "read_loss_scale", "write_loss_scale"]

STATE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


def _scaler(engine: Any) -> Any:
    """The object that holds the scale: with ZeRO and without it; None where nothing is scaled."""
    optimizer = engine.optimizer
    found = getattr(optimizer, "loss_scaler", None) or getattr(optimizer, "loss_scale_config", None)
    dynamic = getattr(found, "dynamic", False) or getattr(found, "dynamic_loss_scale", False)
    return found if dynamic else None


def can_fall(engine: Any) -> bool:
    """Return whether a gradient that overflows may be the scale's doing: it is not at its least.

    DeepSpeed would raise a bare exception there, or go on leaving out steps; the guards decide.
    """
    scaler = _scaler(engine)
    if scaler is None:
        return False
    scaler.raise_error_at_min_scale = False
    least = getattr(scaler, "min_scale", None) or getattr(scaler, "min_loss_scale", None) or 0
    return bool(scaler.cur_scale > least)


def missing_factor(engine: Any) -> float:
    """Return what the loss has to be multiplied by before it is given to DeepSpeed.

    Without ZeRO, DeepSpeed 0.19.8 divides the gradient by the scale but does not multiply the loss
    by it: nothing is kept from underflow, and gradients are 65,536 times too small to be clipped.
    """
    without_zero = getattr(engine.optimizer, "loss_scale_config", None)
    return 1.0 if without_zero is None else float(without_zero.cur_scale)


def read_loss_scale(engine: Any) -> dict[str, float]:
    """Return the state of the dynamic loss scale of a DeepSpeed engine; empty without one."""
    scaler = _scaler(engine)
    return {name: getattr(scaler, name) for name in STATE if hasattr(scaler, name)}


def write_loss_scale(engine: Any, state: Mapping[str, float]) -> None:
    """Set what `read_loss_scale` returned, also by an engine of another ZeRO stage."""
    scaler = _scaler(engine)
    for name, value in state.items():
        if hasattr(scaler, name):
            setattr(scaler, name, value)
