"""Submitted jobs of a run: `runs/<run>/jobs.jsonl`, one line per job."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hpc_llm.rundir import append_line, read_jsonl

__all__ = ["SubmittedJob", "newest_chain", "read_jobs", "record_jobs"]


@dataclass(frozen=True, kw_only=True)
class SubmittedJob:
    """One submitted job."""

    job: str
    """Slurm's job id."""
    chain: str
    """Id of the first job submitted with it."""
    part: str
    """Its part of the recipe: train, corpus+tokenizer."""
    command: list[str]
    """Arguments of `hpc-llm`, without the configuration."""
    stages: list[str]
    """Its unfinished stages at submission."""
    after: list[str]
    """Jobs that must succeed before it starts."""
    log: str
    """Path of its log."""
    when: str
    """Time of submission in UTC, in the format of the stage records."""


NEEDED = [one.name for one in fields(SubmittedJob)]


def record_jobs(path: Path, jobs: Sequence[SubmittedJob]) -> None:
    """Append the jobs of a chain, in order."""
    for job in jobs:
        append_line(path, asdict(job))


def read_jobs(path: Path) -> list[SubmittedJob]:
    """Return all jobs of a run, the newest chain last; other lines are skipped."""
    return [
        SubmittedJob(**{key: line[key] for key in NEEDED})
        for line in read_jsonl(path)
        if all(key in line for key in NEEDED)
    ]


def newest_chain(path: Path) -> list[SubmittedJob]:
    """Return the jobs of the most recent submission."""
    jobs = read_jobs(path)
    return [job for job in jobs if job.chain == jobs[-1].chain]
