"""Translate settings of Hydra's submitit launcher to `launch=slurm`.

Hydra users write `-m hydra/launcher=submitit_slurm hydra.launcher.timeout_min=60`. That plugin
blocks until the last trial is done, reports a failed trial as success (COMPLETED 0:0 in Slurm), and
signals only one of several ranks to save. Here the same settings submit the trials as job arrays of
`launch=slurm`, with one task or many.
"""

import difflib
from collections.abc import Sequence
from dataclasses import fields

from hydra.core.override_parser.types import Override, OverrideType

from hpc_llm.errors import UserError

__all__ = ["as_launch", "of_launcher"]

LAUNCHER = "submitit_slurm"
PREFIX = "hydra.launcher."
SAME = ("partition", "qos", "account", "constraint", "exclude", "cpus_per_task")
OPTIONS = ("comment", "gres", "cpus_per_gpu", "mem_per_gpu", "mem_per_cpu")
MEANING = {
    **{key: f"launch.{key}" for key in SAME},
    **{key: f"launch.options.{key.replace('_', '-')}" for key in OPTIONS},
    "additional_parameters": "launch.options",
    "array_parallelism": "launch.throttle",
    "gpus_per_node": "cluster.devices_per_node",
    "max_num_timeout": "launch.max_requeues",
    "mem_gb": "launch.mem",
    "name": "launch.options.job-name",
    "nodes": "cluster.nodes",
    "tasks_per_node": "launch.processes",
    "timeout_min": "launch.time",
}
UNITS = {"mem_gb": "G"}
OTHERWISE = {
    "gpus_per_task": "each task has one GPU; set hydra.launcher.gpus_per_node",
    "setup": "jobs inherit the environment of the submitting shell; load modules there",
    "signal_delay_s": "all ranks save five minutes before the limit; remove it",
    "stderr_to_stdout": "a job has one log; remove it",
    "submitit_folder": "scripts and logs are in the run folders; remove it",
}


def of_launcher(override: Override) -> bool:
    """Return whether an override chooses or sets Hydra's launcher."""
    return f"{override.key_or_group.replace('/', '.')}.".startswith(PREFIX)


def as_launch(overrides: Sequence[Override]) -> list[str]:
    """Return the overrides of a sweep, with those of Hydra's launcher translated.

    Raises `UserError` for a launcher other than `submitit_slurm`, and for settings that it does not
    have or that have no equivalent here.
    """
    chosen = [over for over in overrides if over.key_or_group == "hydra/launcher"]
    for override in chosen:
        if override.type is OverrideType.DEL or override.value() != LAUNCHER:
            raise UserError(
                override.input_line or "",
                None,
                f"the only supported launcher is {LAUNCHER}",
                "remove it to run the trials here, one after another",
            )
    lines = []
    for override in overrides:
        line: str = override.input_line or ""
        if override in chosen:
            line = "launch=slurm"
        elif of_launcher(override):
            if not chosen:
                raise UserError(
                    line, None, f"needs hydra/launcher={LAUNCHER}", "add it, or use launch=slurm"
                )
            line = _as_launch(override)
        lines.append(line)
    return lines


def _as_launch(override: Override) -> str:
    line: str = override.input_line or ""
    key, _, rest = override.key_or_group.removeprefix(PREFIX).partition(".")
    if key in OTHERWISE:
        rule, _, fix = OTHERWISE[key].partition("; ")
        raise UserError(line, None, rule, fix)
    if key not in MEANING:
        from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf

        known = [field.name for field in fields(SlurmQueueConf)]
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(MEANING)}"
        raise UserError(line, None, f"{LAUNCHER} has no such setting", hint)
    if override.type is OverrideType.DEL or override.is_sweep_override():
        raise UserError(line, None, "must be equal for all trials of a sweep", "set a single value")
    dotted = ".".join([MEANING[key], *rest.split(".")]) if rest else MEANING[key]
    return f"{dotted}={line.split('=', 1)[1]}{UNITS.get(key, '')}"
