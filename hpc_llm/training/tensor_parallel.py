"""Tensor parallelism by DeepSpeed's AutoTP: groups, layers and the parameters split over ranks.

DeepSpeed replaces the linear layers when it starts the engine, as transformers' plan for the family
says. Afterwards a parameter is this rank's part, marked with a `Split`, by which checkpoints and
results are gathered. A process has at most one engine with tensor parallelism at a time.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.nn.utils import get_total_norm

from hpc_llm.distributed import Layout
from hpc_llm.surgery.split import Split, split_of
from hpc_llm.surgery.trainable import Trainable

__all__ = ["end_groups", "gradient_norm", "mark_split", "start_groups", "tensor_config"]


def tensor_config(layout: Layout) -> dict[str, Any]:
    """Return the section of DeepSpeed's configuration; {} without tensor parallelism."""
    return {"tensor_parallel": {"autotp_size": layout.tensor}} if layout.tensor > 1 else {}


def start_groups(layout: Layout) -> Any:
    """Create the process groups (collective); return DeepSpeed's `mpu`, None without any."""
    if layout.tensor == 1:
        return None
    from deepspeed.utils import groups

    groups._init_tp_mesh_device(layout.tensor)
    return groups


def end_groups(layout: Layout) -> None:
    """Release the groups of `start_groups`, so that the next engine may have others.

    They are not destroyed: a group of all ranks is the one of the whole process.
    """
    if layout.tensor == 1:
        return
    from deepspeed.module_inject.layers import set_autotp_mode
    from deepspeed.utils import groups

    for group in (groups.get_data_parallel_group(), groups.get_tensor_model_parallel_group()):
        groups._release_process_group_references(group)
    groups.mpu = None
    set_autotp_mode(training=False)


def mark_split(trainable: Trainable, layout: Layout) -> None:
    """Mark the parameters that DeepSpeed has split, and let `trainable` hold those of the model.

    Under ZeRO-3 DeepSpeed replaces a parameter that it splits.
    """
    if layout.tensor == 1:
        return
    from deepspeed.checkpoint.constants import DS_AUTOTP_UC_META
    from deepspeed.utils import groups

    group = groups.get_tensor_model_parallel_group()
    for name, parameter in trainable.causal.named_parameters():
        for kind in (trainable.embeddings, trainable.body):
            if name in kind:
                kind[name] = parameter
        meta = getattr(parameter, DS_AUTOTP_UC_META, None) or {}
        if meta.get("partition_dim") is not None:
            parameter.ranks_split = Split(
                shape=torch.Size(meta["logical_shape"]),
                dim=meta["partition_dim"],
                index=groups.get_tensor_model_parallel_rank(),
                parts=layout.tensor,
                group=group,
            )


def gradient_norm(parameters: Iterable[torch.Tensor]) -> float:
    """Return the norm of all gradients; collective if some parameters are split.

    A whole parameter has the same gradient on all ranks of a group, and counts once.
    """
    found = [(split_of(p), p.grad) for p in parameters if p.grad is not None]
    whole = float(get_total_norm([grad for split, grad in found if split is None]))
    parts = [grad for split, grad in found if split is not None]
    if not parts:
        return whole
    square = get_total_norm(parts).square()
    torch.distributed.all_reduce(square, group=next(s.group for s, _ in found if s is not None))
    return math.hypot(whole, math.sqrt(square))
