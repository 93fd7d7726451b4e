"""Defaults for a laptop are never taken silently for a cluster or for a large model.

Without `cluster=` a run has `train=default`: short sequences, small batches, a few hundred steps.
"""

from collections.abc import Mapping, Sequence

from hpc_llm.accounting.architecture import Architecture, parameter_count
from hpc_llm.accounting.model_file import model_config
from hpc_llm.config.words import override_key
from hpc_llm.errors import UserError
from hpc_llm.rundir import conf_files
from hpc_llm.settings import RunConfig
from hpc_llm.settings.model import LARGE

__all__ = ["refuse_laptop_defaults"]

CHOICES = {"cluster", "train", "experiment"}
GPUS = ("SLURM_GPUS_ON_NODE", "SLURM_JOB_GPUS", "SLURM_GPUS_PER_NODE", "SLURM_GPUS")


def refuse_laptop_defaults(
    overrides: Sequence[str], cfg: RunConfig, environment: Mapping[str, str]
) -> None:
    """Raise `UserError`, naming `cluster=`, if a run would take defaults for a laptop unasked.

    That is inside a Slurm allocation with GPUs, for Slurm jobs on GPUs and for a model above
    `LARGE` parameters, unless `overrides` choose a cluster, training settings or an experiment.
    """
    chosen = {override_key(word) for word in overrides} & CHOICES
    if chosen or cfg.model.path is None:
        return
    place, fix = _place(cfg, environment)
    if place is None:
        return
    train = cfg.train
    options = [name for name in conf_files("cluster") if name != "local"]
    raise UserError(
        "cluster",
        "local",
        f"has training settings for a laptop (train.sequence_length={train.sequence_length}, "
        f"train.batch_tokens={train.batch_tokens}, {_steps(cfg)} steps), but {place}",
        f"add {fix}, or cluster=local to keep them; NAME is one of {', '.join(options)}",
    )


def _steps(cfg: RunConfig) -> int:
    return sum(stage.steps for stage in cfg.stages.values())


def _place(cfg: RunConfig, environment: Mapping[str, str]) -> tuple[str | None, str]:
    """Return what is too large for a laptop, or None; and the settings to add."""
    if environment.get("SLURM_JOB_ID") and any(environment.get(name) for name in GPUS):
        nodes = environment.get("SLURM_JOB_NUM_NODES") or environment.get("SLURM_NNODES") or "1"
        devices = environment.get("SLURM_GPUS_ON_NODE", "")
        fix = f"cluster=NAME cluster.nodes={nodes}"
        fix += f" cluster.devices_per_node={devices}" if devices.isdecimal() else ""
        return f"Slurm has allocated GPUs to this job (nodes: {nodes})", fix
    if cfg.launch.name == "slurm" and cfg.hardware.kind == "gpu":
        return f"its jobs run on GPUs (hardware: {cfg.hardware.name})", "cluster=NAME"
    try:
        config, _ = model_config(cfg.model)
        parameters = parameter_count(Architecture.from_config(config)).total
    except UserError:  # a hub id, or a family without a closed form: unknown until it is loaded
        return None, ""
    large = f"the model has {parameters:_} parameters"
    return large if parameters > LARGE else None, "cluster=NAME"
