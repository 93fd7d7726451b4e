"""Trained parameters and their optimizer states by name, whole, at any ZeRO stage.

DeepSpeed keeps them flat and divided among the ranks. Here they are gathered (or set) parameter
by parameter, so what a checkpoint holds depends neither on the ZeRO stage nor on the number of
ranks. Every function is collective: all ranks call it with the same parameters in the same order.
"""

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["full_parameter", "gather_states", "restore_states"]

MOMENTS = ("exp_avg", "exp_avg_sq")


def _inner(engine: Any) -> tuple[torch.optim.Optimizer, list[torch.Tensor]]:
    """The torch optimizer and the tensors that it steps: flat partitions, or parameters."""
    optimizer = engine.optimizer
    for name in ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat"):
        if hasattr(optimizer, name):
            return optimizer.optimizer, list(getattr(optimizer, name))
    return optimizer, [p for group in optimizer.param_groups for p in group["params"]]


def _link(engine: Any) -> None:
    """Let DeepSpeed's parameters know their optimizer states (stages 1 and 2).

    DeepSpeed links them in the step of the first group only, when the states of the other groups
    do not exist yet (0.19.8); so it is told to link them again.
    """
    if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def _divided(parameter: torch.Tensor) -> bool:
    return hasattr(parameter, "_hp_mapping") or hasattr(parameter, "ds_id")


def full_parameter(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Return a CPU copy of a whole parameter in the model's precision."""
    if hasattr(parameter, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().cpu().clone().contiguous()
    return parameter.detach().cpu().clone().contiguous()


def gather_states(
    engine: Any, parameters: Mapping[str, torch.nn.Parameter]
) -> tuple[dict[str, torch.Tensor], float]:
    """Return fp32 weights and both moments as CPU tensors `kind/name`, and the optimizer's step."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    optimizer, flats = _inner(engine)
    _link(engine)
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in parameters.items():
        if _divided(parameter):
            values = {"weight": safe_get_full_fp32_param(parameter)}
            values |= {m: safe_get_full_optimizer_state(parameter, m) for m in MOMENTS}
        else:
            values = {"weight": parameter.detach()}
            values |= {m: optimizer.state[parameter][m] for m in MOMENTS}
        for kind, value in values.items():
            tensors[f"{kind}/{name}"] = value.reshape(_shape(parameter)).cpu().clone().contiguous()
    return tensors, float(optimizer.state[flats[0]]["step"])


def _shape(parameter: torch.nn.Parameter) -> torch.Size:
    return getattr(parameter, "ds_shape", parameter.shape)


def restore_states(
    engine: Any,
    parameters: Mapping[str, torch.nn.Parameter],
    tensors: Mapping[str, torch.Tensor],
    optimizer_step: float,
) -> None:
    """Set what `gather_states` returned; the weights in the model were loaded before."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    optimizer, flats = _inner(engine)
    for flat in flats:
        optimizer.state[flat] = {
            "step": torch.tensor(optimizer_step, dtype=torch.float32, device=flat.device),
            **{m: torch.zeros_like(flat) for m in MOMENTS},
        }
    _link(engine)
    for name, parameter in parameters.items():
        device = flats[0].device
        if _divided(parameter):
            safe_set_full_fp32_param(parameter, tensors[f"weight/{name}"].to(device))
            for moment in MOMENTS:
                value = tensors[f"{moment}/{name}"].to(device)
                safe_set_full_optimizer_state(parameter, value, moment)
        else:
            for moment in MOMENTS:
                optimizer.state[parameter][moment].copy_(tensors[f"{moment}/{name}"])
