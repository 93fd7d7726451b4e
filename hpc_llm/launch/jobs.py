"""Submitted jobs of a run: `runs/<run>/jobs.jsonl`, one line per job."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

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


JOB_ID = re.compile(r"[0-9]{1,12}(_[0-9]{1,9})?")


def record_jobs(path: Path, jobs: Sequence[SubmittedJob]) -> None:
    """Append the jobs of a chain, in order."""
    for job in jobs:
        append_line(path, asdict(job))


def read_jobs(path: Path) -> list[SubmittedJob]:
    """Return all jobs of a run, the newest chain last.

    The file may be damaged or forged: lines that do not describe a job are skipped, for example one
    whose id is not a number or a number and an array task (7_0).
    """
    return [job for line in read_jsonl(path) if (job := _job(line)) is not None]


def _job(line: Mapping[str, Any]) -> SubmittedJob | None:
    kinds = {one.name: one.type for one in fields(SubmittedJob)}
    values: dict[str, Any] = {name: line.get(name) for name in kinds}
    for name, kind in kinds.items():
        value = values[name]
        texts = value if kind == list[str] and isinstance(value, list) else [value]
        if isinstance(value, list) != (kind == list[str]) or not _all_texts(texts):
            return None
    job = SubmittedJob(**values)
    known = all(JOB_ID.fullmatch(one) for one in (job.job, job.chain, *job.after))
    return job if known and _is_time(job.when) else None


def _all_texts(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def newest_chain(path: Path) -> list[SubmittedJob]:
    """Return the jobs of the most recent submission."""
    jobs = read_jobs(path)
    return [job for job in jobs if job.chain == jobs[-1].chain]
