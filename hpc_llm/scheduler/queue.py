"""What Slurm says of jobs: `squeue` of those that wait, run or ended lately, `sacct` of all.

A task of an array is called `7_0`, as Slurm does. Without Slurm, or where a site keeps no
accounting, less is known, and what could not be queried is reported.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.scheduler.commands import query

__all__ = ["JobState", "job_states", "live_jobs"]

ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
)
QUEUE = ("squeue", "--noheader", "--array")  # a line for each task of an array
SQUEUE = (*QUEUE, "--states=all", "--format=%i|%T|%N|%S|%M|%l|%r")
SACCT = ("sacct", "-X", "-n", "-P", "--format=JobID,State,NodeList,Start,Elapsed,ExitCode")
UNKNOWN = ("", "n/a", "unknown", "none assigned")


@dataclass(frozen=True, kw_only=True)
class JobState:
    """A job as Slurm knows it; what it does not say is empty."""

    state: str
    """Slurm's word: PENDING, RUNNING, COMPLETED, ..."""
    nodes: str = ""
    start: str = ""
    """When it began, or is expected to, by the clock of the cluster."""
    elapsed: str = ""
    limit: str = ""
    reason: str = ""
    """Why it waits, in Slurm's word."""
    exit_code: int | None = None

    @property
    def is_live(self) -> bool:
        """Whether it waits or runs."""
        return self.state not in ENDED


def job_states(jobs: Sequence[str]) -> tuple[dict[str, JobState], list[str]]:
    """Return what Slurm knows of jobs, by their ids, and a sentence for what could not be asked.

    A job that it does not know any more is omitted.
    """
    if not jobs:
        return {}, []
    ids = _named(jobs)
    queued, remark = query(*SQUEUE, ids)
    remarks = [remark] if remark and "Invalid job id" not in remark else []
    states = dict(_of_squeue(line) for line in queued.splitlines())
    if any(job not in states or not states[job].is_live for job in jobs):
        known, remark = query(*SACCT, ids)
        remarks += [remark] if remark else []
        for job, state in _of_sacct(known):
            if job not in states or not state.is_live:  # accounting lags behind
                states[job] = state
    return {job: states[job] for job in jobs if job in states}, remarks


def live_jobs(jobs: Sequence[str]) -> list[str]:
    """Return those of the jobs that wait or run, an array while one of its tasks does.

    `UserError` where Slurm does not answer.
    """
    if not jobs:
        return []
    queued, remark = query(*QUEUE, "--format=%i", _named(jobs))
    if remark and "Invalid job id" not in remark:
        raise UserError(
            "squeue",
            None,
            remark.removeprefix("squeue: "),
            "call hpc-llm on a login node of the cluster",
        )
    live = {*queued.split(), *(job.split("_")[0] for job in queued.split())}
    return [job for job in jobs if job in live]


def _named(jobs: Sequence[str]) -> str:
    """Return the option that asks for jobs; for a task all of its array is asked for."""
    return f"--jobs={','.join(sorted({job.split('_')[0] for job in jobs}))}"


def _known(text: str) -> str:
    return "" if text.lower() in UNKNOWN else text


def _of_squeue(line: str) -> tuple[str, JobState]:
    job, state, nodes, start, elapsed, limit, reason = line.split("|", 6)
    return job, JobState(
        state=state,
        nodes=_known(nodes),
        start=_known(start),
        elapsed=elapsed,
        limit=limit,
        reason="" if reason == "None" else reason.strip("()"),
    )


def _of_sacct(text: str) -> Iterator[tuple[str, JobState]]:
    for line in text.splitlines():
        jobs, state, nodes, start, elapsed, code = line.split("|")
        found = re.fullmatch(r"(\d+):(\d+)", code)
        number = int(found[1]) or (128 + int(found[2]) if int(found[2]) else 0) if found else None
        known = JobState(
            state=state.split()[0],  # CANCELLED by 1000
            nodes=_known(nodes),
            start=_known(start),
            elapsed=elapsed,
            exit_code=number,
        )
        yield from ((job, known) for job in _jobs(jobs))


def _jobs(text: str) -> Iterator[str]:
    """Yield the jobs that are meant: 7 is one, 7_[0-2,5%2] are four tasks that never began."""
    found = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", text)
    if found is None:
        yield text
        return
    for part in found[2].split(","):
        first, _, last = part.partition("-")
        yield from (f"{found[1]}_{task}" for task in range(int(first), int(last or first) + 1))
