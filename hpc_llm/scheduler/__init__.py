"""Queries to Slurm about jobs: one wrapper for `squeue`, `sacct` and `scontrol`."""

from hpc_llm.scheduler.commands import cancel, release
from hpc_llm.scheduler.queue import JobState, job_states, live_jobs, names_and_scripts
from hpc_llm.scheduler.records import billed_hours, is_running, job_start, start_states

__all__ = [
    "JobState",
    "billed_hours",
    "cancel",
    "is_running",
    "job_start",
    "job_states",
    "live_jobs",
    "names_and_scripts",
    "release",
    "start_states",
]
