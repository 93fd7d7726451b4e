"""The jobs that were submitted for a run: `runs/<run>/jobs.jsonl`, one line for each."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hpc_llm.rundir import append_line, read_jsonl

__all__ = ["SubmittedJob", "newest_chain", "read_jobs", "record_jobs"]


@dataclass(frozen=True, kw_only=True)
class SubmittedJob:
    """One job, as it was submitted."""

    job: str
    """Slurm's id."""
    chain: str
    """Id of the first job that was submitted with it."""
    part: str
    """What of the recipe it does: train, corpus+tokenizer."""
    command: list[str]
    """What follows `hpc-llm`, but for the configuration."""
    stages: list[str]
    """What it had to do when it was submitted."""
    after: list[str]
    """Jobs that have to end well before it begins."""
    log: str
    """Where its log lies."""
    when: str
    """When it was submitted, as the record of stages writes it: in UTC."""


NEEDED = [one.name for one in fields(SubmittedJob)]


def record_jobs(path: Path, jobs: Sequence[SubmittedJob]) -> None:
    """Append the jobs of a chain, in their order."""
    for job in jobs:
        append_line(path, asdict(job))


def read_jobs(path: Path) -> list[SubmittedJob]:
    """Return all jobs of a run, the newest chain last; what is not such a line is skipped."""
    return [
        SubmittedJob(**{key: line[key] for key in NEEDED})
        for line in read_jsonl(path)
        if all(key in line for key in NEEDED)
    ]


def newest_chain(path: Path) -> list[SubmittedJob]:
    """Return the jobs that were submitted together last."""
    jobs = read_jobs(path)
    return [job for job in jobs if job.chain == jobs[-1].chain]
