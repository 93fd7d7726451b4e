"""Settings of the launch (`conf/launch/`): local, or as Slurm jobs."""

import re
from dataclasses import dataclass
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields, count, require_choice

__all__ = [
    "PLACES",
    "SIGNAL_SECONDS",
    "LaunchSettings",
    "memory_gib",
    "walltime_minutes",
]

PLACES = {
    "corpus": "cpu",
    "pretrain": "all",
    "tokenizer": "cpu",
    "transplant": "one",
    "train": "all",
    "result": "one",
}
"""The jobs of a chain in order, and the resources of each: cores of a node (cpu), one device (one;
more if the model does not fit it), or all."""

SIGNAL_SECONDS = 300  # the ranks are signalled to save this long before the time limit
MEMORY = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)
GIB = {"K": 2**-20, "M": 2**-10, "": 2**-10, "G": 1.0, "T": 2.0**10}
NO_LIMIT = ("infinite", "unlimited")
WALLTIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<rest>\d+(?::\d+){0,2})")


@dataclass(kw_only=True)
class LaunchSettings:
    """Run locally or as Slurm jobs. null: the site's default."""

    name: str
    """local | slurm."""
    processes: int = count(10**4)
    """Ranks to start on this machine; in a Slurm job on CPUs, ranks per node."""
    partition: str | None
    """Slurm partition."""
    account: str | None
    """Account that the job is charged to."""
    qos: str | None
    """Quality of service."""
    reservation: str | None
    """Slurm reservation."""
    time: str | None
    """Time limit in sbatch's format: 24:00:00, 2-00:00:00, or minutes. The job is requeued shortly
    before it, so it may be shorter than the run."""
    cpus_per_task: int | None = count(10**5)
    """CPU cores per rank."""
    mem: str | None
    """Host memory per node: 480G; 0: all of it."""
    constraint: str | None
    """Required node features."""
    exclude: str | None
    """Nodes to exclude: node[03,17]."""
    options: dict[str, Any]
    """Any other sbatch option without its dashes, or another value for an option of the script;
    true: an option without a value, null: omit it."""
    max_requeues: int = count(10**6, 0)
    """Maximum number of times the job requeues itself."""
    max_failures: int = count(10**6, 0)
    """Consecutive failures at the same step after which a job is refused; 0: never."""
    snapshot: bool
    """Copy hpc-llm to the run folder, so that queued jobs run the submitted code."""
    preflight: bool
    """Test the nodes before training, and requeue the job without bad ones."""
    chain: bool
    """Submit a chain of jobs, one per part of the recipe with the resources it needs; false: one
    job, on the nodes of training."""
    throttle: int | None = count(10**6)
    """Sweeps: maximum number of trials running in the same part of the chain; null: all."""
    cpu_partition: str | None
    """Partition of corpus and tokenizer; null: the same partition, without GPUs."""
    parts: dict[str, Any]
    """sbatch options of one part of the chain: parts.train.time, parts.corpus.mem."""

    def __post_init__(self) -> None:
        """Check the values."""
        require_choice("launch.name", self.name, ("local", "slurm"))
        check_fields(self, "launch")
        if self.name == "local":
            self._check_nothing_is_slurms()
        if self.time is not None:
            minutes = walltime_minutes(self.time)
            if minutes is not None and minutes * 60 < 2 * SIGNAL_SECONDS:
                raise UserError(
                    "launch.time",
                    self.time,
                    f"the ranks save {SIGNAL_SECONDS // 60} minutes before the limit",
                    f"use at least {2 * SIGNAL_SECONDS // 60} minutes",
                )
        if self.mem is not None:
            memory_gib(self.mem)
        _check_options("launch.options", self.options)
        for part, options in self.parts.items():
            _check_part(part, options)

    def _check_nothing_is_slurms(self) -> None:
        keys = ("partition", "account", "qos", "reservation", "time", "cpus_per_task", "mem")
        for key in (
            *keys,
            "constraint",
            "exclude",
            "cpu_partition",
            "throttle",
            "preflight",
            "snapshot",
        ):
            if getattr(self, key):
                raise UserError(
                    f"launch.{key}",
                    getattr(self, key),
                    "applies to Slurm jobs only",
                    "add launch=slurm",
                )


def _check_part(part: str, options: Any) -> None:
    require_choice("launch.parts", part, tuple(PLACES))
    if not isinstance(options, dict):
        raise UserError(
            f"launch.parts.{part}",
            options,
            f"must name an sbatch option, as in launch.parts.{part}.time=2:00:00",
        )
    _check_options(f"launch.parts.{part}", options)


def _check_options(where: str, options: dict[str, Any]) -> None:
    for key in options:
        if not re.fullmatch(r"[a-z][a-z0-9_-]+", key):
            raise UserError(
                f"{where}.{key}",
                None,
                f"must be a long sbatch option without its dashes, as in {where}.mail-type=END",
            )


def walltime_minutes(text: str, key: str = "launch.time") -> float | None:
    """Return the minutes of a time limit in sbatch's format; None: no limit.

    Raises `UserError` for any format other than minutes, minutes:seconds, hours:minutes:seconds,
    days-hours, days-hours:minutes, days-hours:minutes:seconds, infinite.
    """
    if text.lower() in NO_LIMIT:
        return None
    found = WALLTIME.fullmatch(text)
    if found is None:
        raise UserError(
            key, text, "must be a time limit in sbatch's format: 24:00:00, 2-00:00:00 or minutes"
        )
    parts = [int(part) for part in found["rest"].split(":")]
    if found["days"] is not None:  # hours, minutes, seconds
        hours, minutes, seconds = (*parts, 0, 0)[:3]
        return int(found["days"]) * 1440 + hours * 60 + minutes + seconds / 60
    if len(parts) == 3:
        return parts[0] * 60 + parts[1] + parts[2] / 60
    return parts[0] + (parts[1] / 60 if len(parts) == 2 else 0)


def memory_gib(text: str, key: str = "launch.mem") -> float:
    """Return the GiB of a memory size in sbatch's format: 480G, 2T, or a number of MiB."""
    found = MEMORY.fullmatch(text)
    if found is None:
        raise UserError(
            key, text, "must be a memory size in sbatch's format: 480G, or 0 for all of a node"
        )
    return int(found[1]) * GIB[found[2].upper()]
