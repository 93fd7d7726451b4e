"""Full trained parameters and their optimizer states by name, at any ZeRO stage.

DeepSpeed keeps them flattened and partitioned across ranks. Here they are gathered (or set) one
parameter at a time, also those that tensor parallelism splits, so a checkpoint depends neither on
the ZeRO stage nor on the number of ranks.
Every function is collective: all ranks call it with the same parameters in the same order.
"""

from collections.abc import Mapping
from typing import Any

import torch

from hpc_llm.surgery.loading import full_shape, gathered, part_shape
from hpc_llm.surgery.split import split_of
from hpc_llm.training.loss_scale import read_loss_scale, write_loss_scale
from hpc_llm.training.transfers import HostCopies

__all__ = [
    "full_parameter",
    "full_parameters",
    "gather_states",
    "optimizer_state",
    "restore_states",
    "start_states",
    "whole_of",
]

MOMENTS = ("exp_avg", "exp_avg_sq")


def _inner(engine: Any) -> tuple[torch.optim.Optimizer, list[torch.Tensor]]:
    """The torch optimizer and the tensors that it updates: flat partitions, or parameters."""
    optimizer = engine.optimizer
    for name in ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat"):
        if hasattr(optimizer, name):
            return optimizer.optimizer, list(getattr(optimizer, name))
    inner = getattr(optimizer, "optimizer", optimizer)  # wrapped in half precision without ZeRO
    return inner, [p for group in inner.param_groups for p in group["params"]]


def _master(engine: Any, parameter: torch.Tensor) -> torch.Tensor:
    """Without ZeRO: the fp32 master of a parameter, which may be the parameter itself."""
    optimizer = engine.optimizer
    groups = zip(
        getattr(optimizer, "fp16_groups", []), getattr(optimizer, "fp32_groups", []), strict=True
    )
    for parameters, masters in groups:
        for own, master in zip(parameters, masters, strict=True):
            if own is parameter:
                return master
    return parameter


def start_states(engine: Any, step: float = 0.0) -> None:
    """Initialise the optimizer's moments to 0 at `step`.

    AdamW creates them in its first update, which is delayed while fp16's initial loss scale is too
    high, and a checkpoint may come earlier. In half precision without ZeRO, DeepSpeed makes an
    update at initialisation, which this undoes.
    """
    optimizer, flats = _inner(engine)
    for flat in flats:
        optimizer.state[flat] = {
            "step": torch.tensor(step, dtype=torch.float32, device=flat.device),
            **{moment: torch.zeros_like(flat) for moment in MOMENTS},
        }
    _link(engine)


def _link(engine: Any) -> None:
    """Link DeepSpeed's parameters to their optimizer states (stages 1 and 2).

    DeepSpeed 0.19.8 links them only in the step of the first group, when the states of the other
    groups do not exist yet; so reset the flag and link them again.
    """
    if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def _partitioned(parameter: torch.Tensor) -> bool:
    return hasattr(parameter, "_hp_mapping") or hasattr(parameter, "ds_id")


def full_parameters(
    parameters: Mapping[str, torch.nn.Parameter], keep: bool
) -> dict[str, torch.Tensor]:
    """Return CPU copies of full parameters; a rank without `keep` gets an empty dict."""
    found = ((name, full_parameter(parameter)) for name, parameter in parameters.items())
    return {name: value for name, value in found if keep}


def full_parameter(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Return a CPU copy of a full parameter in the model's precision."""
    with gathered([parameter], write=False):
        return whole_of(parameter, parameter.detach()).cpu().clone().contiguous()


def whole_of(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return the full tensor of what a rank holds of a parameter or its state (collective)."""
    split, value = split_of(parameter), value.reshape(part_shape(parameter))
    return value if split is None else split.whole(value)


def _part(parameter: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Return what a rank holds of the full tensor of a parameter or its state."""
    split, whole = split_of(parameter), whole.reshape(full_shape(parameter))
    return whole if split is None else split.part(whole)


def gather_states(
    engine: Any, parameters: Mapping[str, torch.nn.Parameter], copies: HostCopies | None
) -> dict[str, torch.Tensor]:
    """Return fp32 weights and both moments as copies in host memory, keyed `kind/name`.

    A rank without `copies` takes part in the collectives and keeps nothing.
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    optimizer, _ = _inner(engine)
    _link(engine)
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in parameters.items():
        for kind in ("weight", *MOMENTS):
            if not _partitioned(parameter):
                master = _master(engine, parameter)
                value = master if kind == "weight" else optimizer.state[master][kind]
            elif kind == "weight":
                value = safe_get_full_fp32_param(parameter)
            else:
                value = safe_get_full_optimizer_state(parameter, kind)
            value = whole_of(parameter, value)
            if copies is not None:
                key = f"{kind}/{name}"
                tensors[key] = copies.copy(key, value)
    if copies is not None:
        copies.wait()
    return tensors


def optimizer_state(engine: Any) -> dict[str, Any]:
    """Return the optimizer state other than tensors: its step, and the loss scale of fp16."""
    optimizer, flats = _inner(engine)
    step = float(optimizer.state[flats[0]]["step"])
    return {"step": step, "loss_scale": read_loss_scale(engine)}


def restore_states(
    engine: Any,
    parameters: Mapping[str, torch.nn.Parameter],
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, Any],
) -> None:
    """Restore states from `gather_states` and `optimizer_state`, and the model's own weights."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    optimizer, flats = _inner(engine)
    start_states(engine, state["step"])
    device = flats[0].device
    for name, parameter in parameters.items():
        for kind in ("weight", *MOMENTS):
            value = _part(parameter, tensors[f"{kind}/{name}"]).to(device)
            if kind == "weight":
                _set_weight(parameter, value)
                if _partitioned(parameter):
                    safe_set_full_fp32_param(parameter, value)
                else:
                    _master(engine, parameter).data.copy_(value)
            elif _partitioned(parameter):
                safe_set_full_optimizer_state(parameter, value, kind)
            else:
                optimizer.state[_master(engine, parameter)][kind].copy_(value)
    write_loss_scale(engine, state["loss_scale"])


def _set_weight(parameter: torch.nn.Parameter, value: torch.Tensor) -> None:
    """Copy a weight into the model's parameter, in the model's precision."""
    with gathered([parameter]):
        parameter.copy_(value)
