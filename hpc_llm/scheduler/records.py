"""Slurm's records of a job: start time (`squeue`), hours charged and end states (`sacct`).

A requeued job has one line in `sacct` per start (`--duplicates`), and all of them are charged.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from hpc_llm.scheduler.commands import answer

__all__ = ["billed_hours", "is_running", "job_start", "start_states"]

FIELDS = "JobIDRaw,JobID,ElapsedRaw,AllocCPUS,AllocTRES"
GPUS = re.compile(r"(?:^|,)gres/gpu(:[^=,]+)?=(\d+)")  # gres/gpu=4, and by type gres/gpu:a100=4


def job_start(environment: Mapping[str, str]) -> float | None:
    """Return the latest start time of this process's job in seconds since 1970; None: unknown.

    Newer versions of Slurm set SLURM_JOB_START_TIME. One array task has the job id of the whole
    array, so tasks are queried as ARRAY_TASK.
    """
    if start := environment.get("SLURM_JOB_START_TIME"):
        return float(start)
    job = environment.get("SLURM_JOB_ID")
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{environment.get('SLURM_ARRAY_TASK_ID')}"
    printed = answer("squeue", "--noheader", "--format=%S", f"--jobs={job}") if job else None
    try:
        return None if printed is None else datetime.fromisoformat(printed.strip()).timestamp()
    except ValueError:  # N/A
        return None


def billed_hours(jobs: Iterable[str], kind: str) -> float | None:
    """Return the device-hours of Slurm jobs: allocated GPUs (or, for kind cpu, CPUs) x wall time.

    None if `sacct` is missing, has no accounting or does not know one of the jobs, and for GPUs if
    none of the jobs has a count of them: then either they have none, or Slurm does not account for
    GPUs (AccountingStorageTRES).
    """
    wanted = set(jobs)
    command = ("sacct", "-X", "-n", "-P", "--duplicates", f"--format={FIELDS}")
    printed = answer(*command, f"--jobs={','.join(sorted(wanted))}") if wanted else None
    if printed is None:
        return None
    starts, known = [], set()
    for line in printed.splitlines():
        raw, name, seconds, cpus, tres = line.split("|")
        if wanted.isdisjoint((raw, name)):  # another task of the array
            continue
        known |= {raw, name}
        starts.append((int(seconds), int(cpus) if kind == "cpu" else _gpus(tres)))
    seen = any(devices for _, devices in starts)
    unknown = any(devices is None and seconds for seconds, devices in starts)
    if not known.issuperset(wanted) or (unknown and not seen):
        return None
    return sum(seconds * (devices or 0) for seconds, devices in starts) / 3600


def _gpus(tres: str) -> int | None:
    """Return the GPUs in Slurm's AllocTRES; None: not accounted for."""
    found = GPUS.findall(tres)
    total = [int(number) for kind, number in found if not kind]
    return total[0] if total else sum(int(number) for _, number in found) if found else None


def is_running(job: str) -> bool:
    """Return whether a job is running according to Slurm."""
    command = ("squeue", "--noheader", "--states=RUNNING", "--format=%i", f"--jobs={job}")
    return bool((answer(*command) or "").strip())


def start_states(job: str) -> list[str]:
    """Return the end state of each start of a job, such as `NODE_FAIL` or `REQUEUED`.

    Empty if unknown.
    """
    command = ("sacct", "-X", "-n", "-P", "--duplicates", "--format=State", f"--jobs={job}")
    return [line.strip() for line in (answer(*command) or "").splitlines()]
