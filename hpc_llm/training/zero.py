"""The DeepSpeed configuration, built only here from the typed settings; no `auto` remains.

The learning rate and the optimizer are ours; DeepSpeed partitions the states and reduces gradients.
`zero.extra` adds any other key that DeepSpeed reads.
"""

from typing import Any

from hpc_llm.distributed import Ranks
from hpc_llm.errors import UserError
from hpc_llm.settings import TrainSettings, ZeroSettings
from hpc_llm.settings.zero import SOURCES
from hpc_llm.training import process_group
from hpc_llm.training.data.batches import BatchPlan, plan_batches
from hpc_llm.training.zero_keys import check_keys

__all__ = ["check_zero", "deepspeed_config", "division_config", "zero_section"]

DEFAULTS = {"steps_per_print": 2**31}  # may be overridden in `zero.extra`


def deepspeed_config(
    train: TrainSettings, zero: ZeroSettings, plan: BatchPlan, elements: int, ranks: Ranks
) -> dict[str, Any]:
    """Return the configuration for `deepspeed.initialize`.

    `elements` is the number of trained parameters: buckets are never larger, so a small model does
    not fill large buffers at every step. Raises `UserError` if `zero.extra` conflicts with the
    settings.
    """
    gpu = process_group.device_of().type == "cuda"
    derived: dict[str, Any] = {
        "train_batch_size": None,  # the product of the next two and the ranks
        "train_micro_batch_size_per_gpu": plan.micro_rows,
        "gradient_accumulation_steps": plan.accumulation,
        "managed_gradient_accumulation": True,
        "gradient_clipping": train.gradient_clipping,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "optimizer": None,
        "scheduler": None,
        "bfloat16": None,  # alias of bf16
        "bf16": {"enabled": train.precision == "bf16"},
        "fp16": {"enabled": train.precision == "fp16"},
        "zero_optimization": zero_section(zero, elements, ranks.local_world_size, gpu=gpu),
    }
    return {**DEFAULTS, **_given(_merged(derived, zero.extra))}


def zero_section(
    zero: ZeroSettings, elements: int, node_ranks: int, *, gpu: bool
) -> dict[str, Any]:
    """Return the section `zero_optimization`; None stands for a key that is not set.

    `elements` is the number of trained parameters, `node_ranks` that of the ranks of a node.
    """
    bucket = max(1, min(zero.bucket_elements, elements))
    return {
        "stage": zero.stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        "overlap_comm": zero.overlaps(gpu=gpu),
        "offload_optimizer": {"device": "cpu"} if zero.offload_optimizer else None,
        "offload_param": {"device": "cpu"} if zero.offload_parameters else None,
        "stage3_prefetch_bucket_size": zero.prefetch_elements,
        "stage3_param_persistence_threshold": zero.persistence_elements,
        "stage3_model_persistence_threshold": zero.model_persistence_elements,
        "stage3_max_live_parameters": zero.live_elements,
        "stage3_max_reuse_distance": zero.reuse_elements,
        "zero_hpz_partition_size": node_ranks if zero.node_partition else None,
        "zero_quantized_weights": zero.quantized_weights,
        "zero_quantized_gradients": zero.quantized_gradients,
    }


def division_config(
    train: TrainSettings, zero: ZeroSettings, ranks: Ranks
) -> dict[str, Any] | None:
    """Return the configuration that partitions a model during construction; None below ZeRO-3.

    Its batch size is a placeholder that DeepSpeed accepts; partitioning does not depend on it.
    """
    if zero.stage < 3:
        return None
    one_row = BatchPlan(1, ranks.world_size, 1, 1, ranks.world_size)
    return deepspeed_config(train, zero, one_row, zero.bucket_elements, ranks)


def check_zero(train: TrainSettings, zero: ZeroSettings, ranks: Ranks, data_parallel: int) -> None:
    """Raise `UserError` for settings that DeepSpeed or the devices reject (collective).

    Runs before anything is loaded. Needs the process group: DeepSpeed validates a configuration
    against the number of ranks.
    """
    plan = plan_batches(train, data_parallel, None)
    gpu = process_group.device_of().type == "cuda"
    sizes = [int(size) for size in process_group.all_values(ranks.local_world_size)]
    zero.check_devices(gpu=gpu, node_ranks=min(sizes))
    if zero.node_partition:
        _check_nodes(ranks, sizes)
    check_keys(deepspeed_config(train, zero, plan, zero.bucket_elements, ranks))


def _check_nodes(ranks: Ranks, sizes: list[int]) -> None:
    """Raise `UserError` unless nodes have equal numbers of ranks, one after the other (collective).

    `sizes` has the ranks of each rank's node. DeepSpeed takes consecutive ranks for a node.
    """
    key, each = "zero.node_partition", sizes[0]
    if len(set(sizes)) > 1:
        rule = f"needs equal nodes; they have {min(sizes)} to {max(sizes)} ranks"
        raise UserError(key, "true", rule, "start as many ranks on every node, or remove it")
    apart = process_group.all_sum([int(ranks.rank % each != ranks.local_rank)])[0]
    if apart or ranks.world_size % each:
        rule = f"needs consecutive ranks on a node; {apart} of {ranks.world_size} are elsewhere"
        raise UserError(key, "true", rule, "use srun --distribution=block, or mpirun --map-by slot")


def _merged(derived: dict[str, Any], extra: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Add `extra` to the derived values, none of which it may override."""
    result = dict(derived)
    for name, value in extra.items():
        here = path + name
        if isinstance(result.get(name), dict) and isinstance(value, dict):
            result[name] = _merged(result[name], value, f"{here}.")
        elif name in result and result[name] != value:
            raise _conflict(here, value, result[name])
        else:
            result[name] = value
    return result


def _conflict(path: str, value: Any, derived: Any) -> UserError:
    key = f"zero.extra.{path}={value}"
    source = SOURCES.get(path) or SOURCES.get(path.rsplit(".", 1)[0])
    if source is None:
        return UserError(
            key,
            None,
            f"must be {derived}",
            "remove it",
        )
    known = "" if derived is None else f" to {derived}"
    return UserError(
        key,
        None,
        f"is set{known} by {source}",
        "change it there",
    )


def _given(section: dict[str, Any]) -> dict[str, Any]:
    """Drop None values, which are placeholders for rejected keys."""
    return {
        name: _given(value) if isinstance(value, dict) else value
        for name, value in section.items()
        if value is not None
    }
