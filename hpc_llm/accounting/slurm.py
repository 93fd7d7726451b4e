"""What Slurm knows of a job's bill: when it began (`squeue`) and what was billed (`sacct`).

A requeued job has one line in `sacct` for each of its starts (`--duplicates`), and all of them
were billed.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from datetime import datetime

__all__ = ["billed_hours", "job_start"]

FIELDS = "JobIDRaw,JobID,ElapsedRaw,AllocCPUS,AllocTRES"
GPUS = re.compile(r"gres/gpu=(\d+)")


def _ask(*command: str) -> str | None:
    """Return what a command of Slurm prints; None where it is missing, slow or refuses."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def job_start(environment: Mapping[str, str]) -> float | None:
    """When the job of this process was started this time, in seconds since 1970; None: unknown.

    Newer versions of Slurm tell it in SLURM_JOB_START_TIME.
    """
    if told := environment.get("SLURM_JOB_START_TIME"):
        return float(told)
    job = environment.get("SLURM_JOB_ID")
    answer = _ask("squeue", "--noheader", "--format=%S", f"--jobs={job}") if job else None
    try:
        return None if answer is None else datetime.fromisoformat(answer.strip()).timestamp()
    except ValueError:  # N/A
        return None


def billed_hours(jobs: Iterable[str], kind: str) -> float | None:
    """Return the device-hours of Slurm jobs: allocated GPUs (or, for kind cpu, CPUs) x wall time.

    None where `sacct` is missing, keeps no accounting or does not know one of the jobs.
    """
    wanted = sorted(set(jobs))
    command = ("sacct", "-X", "-n", "-P", "--duplicates", f"--format={FIELDS}")
    answer = _ask(*command, f"--jobs={','.join(wanted)}") if wanted else None
    if answer is None:
        return None
    hours, known = 0.0, set()
    for line in answer.splitlines():
        raw, name, seconds, cpus, tres = line.split("|")
        known |= {raw, name}
        gpus = GPUS.search(tres)
        devices = int(cpus) if kind == "cpu" else int(gpus[1]) if gpus else 0
        hours += devices * int(seconds) / 3600
    return hours if known.issuperset(wanted) else None
