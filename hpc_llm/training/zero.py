"""The DeepSpeed configuration, built in this one place from the typed settings; no `auto` remains.

The learning rate and the optimizer are ours; DeepSpeed divides the states and reduces gradients.
"""

from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.settings import TrainSettings, ZeroSettings
from hpc_llm.training.batches import BatchPlan

__all__ = ["deepspeed_config"]


def deepspeed_config(
    train: TrainSettings, zero: ZeroSettings, plan: BatchPlan, elements: int
) -> dict[str, Any]:
    """Return the configuration for `deepspeed.initialize`.

    `elements` is the number of trained parameters: buckets are never larger, so that a small
    model does not fill large buffers at every step.
    """
    if zero.stage == 0 and train.precision != "fp32":
        raise UserError(
            f"zero.stage=0 with train.precision={train.precision}: DeepSpeed keeps no fp32 copy "
            "that could be resumed; give zero=stage1 (the same work on one rank)"
        )
    bucket = max(1, min(zero.bucket_elements, elements))
    config: dict[str, Any] = {
        "train_batch_size": plan.rows,
        "train_micro_batch_size_per_gpu": plan.micro_rows,
        "gradient_accumulation_steps": plan.accumulation,
        "gradient_clipping": train.gradient_clipping,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
        "zero_optimization": {
            "stage": zero.stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "overlap_comm": False,
        },
    }
    if zero.stage == 3:
        config["zero_optimization"]["stage3_prefetch_bucket_size"] = bucket
    if train.precision != "fp32":
        config[train.precision] = {"enabled": True}
    if zero.offload_optimizer:
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
    if zero.offload_parameters:
        config["zero_optimization"]["offload_param"] = {"device": "cpu"}
    return _merged(config, zero.extra, "zero.extra")


def _merged(config: dict[str, Any], extra: dict[str, Any], key: str) -> dict[str, Any]:
    """Add `extra` to `config`; what is derived from other settings cannot be set a second time."""
    result = dict(config)
    for name, value in extra.items():
        if isinstance(result.get(name), dict) and isinstance(value, dict):
            result[name] = _merged(result[name], value, f"{key}.{name}")
        elif name in result and result[name] != value:
            raise UserError(
                f"{key}.{name}={value}: is {result[name]} by the settings of train and zero; "
                "change it there"
            )
        else:
            result[name] = value
    return result
