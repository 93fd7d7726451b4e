"""sbatch options: for the whole recipe as one job, and for each part of a chain.

Corpus and tokenizer need no GPU, training needs all, and the transplant and the stages after
training need one: or those of a node, or all, if the model does not fit one.
"""

import re
from collections.abc import Mapping
from typing import Any

from hpc_llm.planning.evaluation import part_place
from hpc_llm.settings import RunConfig
from hpc_llm.settings.launch import SIGNAL_SECONDS

__all__ = ["ranks_per_node", "sbatch_options"]

SITE_OPTIONS = (
    *("partition", "account", "qos", "reservation", "time", "mem", "constraint", "exclude"),
)
# Keys of launch.options that request the nodes and devices of training
SHAPE = re.compile(r"nodes|ntasks.*|gpus?|gpus?-per-.*|.*-per-gpu|tres-per-task|gres|exclusive")
OF_CPU_NODES = {"constraint": None, "reservation": None}  # features of nodes with GPUs


def ranks_per_node(cfg: RunConfig) -> int:
    """Return the ranks per node of a job: one per GPU; `launch.processes` on CPUs."""
    return cfg.launch.processes if cfg.hardware.kind == "cpu" else cfg.cluster.devices_per_node


def sbatch_options(cfg: RunConfig, part: str | None = None) -> dict[str, Any]:
    """Return the options of a part of the chain by their long names; None: all in one job.

    True is an option without a value. `launch.options` overrides the script's own options,
    `launch.parts` overrides both.
    """
    launch, place = cfg.launch, "all" if part is None else part_place(cfg, part)
    options: dict[str, Any] = {
        "open-mode": "append",  # else a restart truncates the log
        **_shape(cfg, place),
        "requeue": True,  # after a node failure or a preemption
        "signal": f"USR1@{SIGNAL_SECONDS}",  # to the ranks, not to the shell: no B:
    }
    options |= {key: getattr(launch, key) for key in SITE_OPTIONS}
    options["partition"] = launch.partition or cfg.cluster.partition
    options |= _of_user(launch.options, place)
    if place == "cpu" and launch.cpu_partition is not None:
        options |= {"partition": launch.cpu_partition, **OF_CPU_NODES}
    options |= _dashed(launch.parts.get(part) or {}) if part else {}
    return {k: value for k, value in options.items() if value is not None and value is not False}


def _shape(cfg: RunConfig, place: str) -> dict[str, Any]:
    """Return nodes, tasks, GPUs and cores."""
    launch, on_cpus = cfg.launch, cfg.hardware.kind == "cpu"
    tasks = ranks_per_node(cfg) if place in ("node", "all") else 1
    cores = launch.cpus_per_task
    if on_cpus:
        cores = cores or max(1, cfg.cluster.devices_per_node // tasks)
    elif place == "cpu":
        cores = max(cores or 1, cfg.tokenizer.threads)
    elif cores is None and cfg.cluster.cores_per_node is not None:
        cores = max(1, cfg.cluster.cores_per_node // cfg.cluster.devices_per_node)
    return {
        "nodes": cfg.cluster.nodes if place == "all" else 1,
        "ntasks-per-node": tasks,
        "gpus-per-node": None if on_cpus or place == "cpu" else tasks,
        "cpus-per-task": cores,
    }


def _dashed(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in options.items()}


def _of_user(options: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return `launch.options` for a part: requests for training's GPUs become what it has."""
    known = _dashed(options)
    if place == "all":
        return known
    kept = {key: value for key, value in known.items() if not SHAPE.fullmatch(key)}
    if place in ("one", "node"):
        for key in ("gres", "gpus-per-node"):
            if key in known:
                kept[key] = _of_one(known[key]) if place == "one" else known[key]
    return kept


def _of_one(value: Any) -> Any:
    """Return gpu:h100:1 for gpu:h100:8, and 1 for 8."""
    return value if value is None else re.sub(r"\d+$", "1", str(value))
