"""The DeepSpeed configuration, built only here from the typed settings; no `auto` remains.

The learning rate and the optimizer are ours; DeepSpeed partitions the states and reduces gradients.
`zero.extra` adds any other key that DeepSpeed reads.
"""

from dataclasses import replace
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.settings import TrainSettings, ZeroSettings
from hpc_llm.training.data.batches import BatchPlan, plan_batches
from hpc_llm.training.zero_keys import check_keys

__all__ = ["check_zero", "deepspeed_config", "division_config"]

# The setting behind each derived value, named in the error for a conflicting `zero.extra` key.
SOURCES = {
    "train_batch_size": "train.batch_tokens",
    "train_micro_batch_size_per_gpu": "train.micro_batch_tokens",
    "gradient_accumulation_steps": "train.micro_batch_tokens",
    "gradient_clipping": "train.gradient_clipping",
    "optimizer": "train (AdamW, its learning rates and weight decays)",
    "scheduler": "schedule",
    "bf16": "train.precision",
    "bfloat16": "train.precision",
    "fp16": "train.precision",
    "zero_optimization.stage": "zero.stage",
    "zero_optimization.reduce_bucket_size": "zero.bucket_elements",
    "zero_optimization.allgather_bucket_size": "zero.bucket_elements",
    "zero_optimization.stage3_prefetch_bucket_size": "zero.bucket_elements",
    "zero_optimization.offload_optimizer": "zero.offload_optimizer",
    "zero_optimization.offload_param": "zero.offload_parameters",
}
DEFAULTS = {"steps_per_print": 2**31}  # may be overridden in `zero.extra`
ZERO_DEFAULTS = {"overlap_comm": False}


def deepspeed_config(
    train: TrainSettings, zero: ZeroSettings, plan: BatchPlan, elements: int
) -> dict[str, Any]:
    """Return the configuration for `deepspeed.initialize`.

    `elements` is the number of trained parameters: buckets are never larger, so a small model does
    not fill large buffers at every step. Raises `UserError` if `zero.extra` conflicts with the
    settings.
    """
    bucket = max(1, min(zero.bucket_elements, elements))
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
        "zero_optimization": {
            "stage": zero.stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "stage3_prefetch_bucket_size": bucket if zero.stage == 3 else None,
            "offload_optimizer": {"device": "cpu"} if zero.offload_optimizer else None,
            "offload_param": {"device": "cpu"} if zero.offload_parameters else None,
        },
    }
    config = {**DEFAULTS, **_given(_merged(derived, zero.extra))}
    config["zero_optimization"] = {**ZERO_DEFAULTS, **config["zero_optimization"]}
    return config


def division_config(
    train: TrainSettings, zero: ZeroSettings, world_size: int
) -> dict[str, Any] | None:
    """Return the configuration that partitions a model during construction; None below ZeRO-3.

    Its batch size is a placeholder that DeepSpeed accepts; partitioning does not depend on it.
    """
    if zero.stage < 3:
        return None
    one_row = BatchPlan(1, world_size, 1, 1, world_size)
    batch = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    extra = {key: value for key, value in zero.extra.items() if key not in batch}
    return deepspeed_config(train, replace(zero, extra=extra), one_row, zero.bucket_elements)


def check_zero(train: TrainSettings, zero: ZeroSettings, data_parallel: int) -> None:
    """Raise `UserError` for settings that DeepSpeed rejects, before anything is loaded.

    Needs the process group: DeepSpeed validates a configuration against the number of ranks.
    """
    plan = plan_batches(train, data_parallel, None)
    check_keys(deepspeed_config(train, zero, plan, zero.bucket_elements))


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
