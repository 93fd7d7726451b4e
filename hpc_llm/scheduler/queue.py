"""Job states: `squeue` for pending, running and recently ended jobs, `sacct` for all.

An array task is called `7_0`, as in Slurm. Without Slurm, or at a site without accounting, less is
known; failed queries are reported.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.scheduler.commands import query

__all__ = ["JobState", "job_states", "live_jobs", "names_and_scripts"]

ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
)
QUEUE = ("squeue", "--noheader", "--array")  # one line per array task
SQUEUE = (*QUEUE, "--states=all", "--format=%i|%T|%N|%S|%M|%l|%r")
SACCT = ("sacct", "-X", "-n", "-P", "--format=JobID,State,NodeList,Start,Elapsed,ExitCode")
UNKNOWN = ("", "n/a", "unknown", "none assigned")


@dataclass(frozen=True, kw_only=True)
class JobState:
    """State of a job as reported by Slurm; unknown fields are empty."""

    state: str
    """Slurm's state: PENDING, RUNNING, COMPLETED, ..."""
    nodes: str = ""
    start: str = ""
    """Start time, or expected start time, by the clock of the cluster."""
    elapsed: str = ""
    limit: str = ""
    reason: str = ""
    """Slurm's reason why the job is pending."""
    exit_code: int | None = None

    @property
    def is_live(self) -> bool:
        """Whether it is pending or running."""
        return self.state not in ENDED


def job_states(jobs: Sequence[str]) -> tuple[dict[str, JobState], list[str]]:
    """Return the states of jobs by id, and an error message per failed query.

    Jobs unknown to Slurm are omitted.
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
    """Return those of `jobs` that are pending or running, an array if any of its tasks is.

    Raises `UserError` if Slurm does not answer.
    """
    if not jobs:
        return []
    queued, remark = query(*QUEUE, "--format=%i", _named(jobs))
    if remark and "Invalid job id" not in remark:
        raise UserError(
            "squeue",
            None,
            remark.removeprefix("squeue: "),
            "run hpc-llm on a login node of the cluster",
        )
    live = {*queued.split(), *(job.split("_")[0] for job in queued.split())}
    return [job for job in jobs if job in live]


def names_and_scripts(jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return name and script of pending and running jobs by id, as Slurm has them.

    An array is also found by its own id, with those of one of its tasks.
    """
    if not jobs:
        return {}
    found: dict[str, tuple[str, str]] = {}
    for line in query(*QUEUE, "--format=%i|%o|%j", _named(jobs))[0].splitlines():
        job, _, rest = line.strip().partition("|")
        script, _, name = rest.partition("|")
        found |= {job: (name, script), job.split("_")[0]: (name, script)}
    return found


def _named(jobs: Sequence[str]) -> str:
    """Return the option that selects jobs; for an array task, its whole array."""
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
    """Expand job ids: 7 is one job, 7_[0-2,5%2] are four tasks that never started."""
    found = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", text)
    if found is None:
        yield text
        return
    for part in found[2].split(","):
        first, _, last = part.partition("-")
        yield from (f"{found[1]}_{task}" for task in range(int(first), int(last or first) + 1))
