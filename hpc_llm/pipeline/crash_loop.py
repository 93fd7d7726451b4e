"""Crash loop detection: stop a job that keeps failing at the same step, and report why.

Slurm restarts a job after a node failure, and users queue jobs ahead. If the run itself fails (a
document that exhausts memory, a node that breaks under full load), restarts would repeat until the
hours are spent. `starts.jsonl` records where each start began and how it ended.

The definition of a failure is narrow. An error or a stall reported by rank 0 counts, and so does a
start that was killed and restarted by Slurm, unless the job was preempted or requeued by hand.
`sacct` is queried for that; if it does not know, an earlier stop signal decides. A time limit
reached before the first step is saved also counts: every restart would reach it again. Other stop
requests, Ctrl-C, `scancel` or an error in the command are not failures, and any changed setting,
number of ranks or program version resets the count.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from hpc_llm.errors import EXIT_BUDGET, EXIT_REQUEUE, EXIT_USER, CrashLoop
from hpc_llm.pipeline.context import Context
from hpc_llm.pipeline.lock import EXIT_INTERRUPTED
from hpc_llm.rundir import Start, read_starts
from hpc_llm.scheduler import start_states

__all__ = ["failed_before", "refuse_crash_loop"]

CLEAN = (0, EXIT_BUDGET, EXIT_REQUEUE, EXIT_INTERRUPTED)
TIME_LIMIT = "SIGUSR1"  # sent by --signal before the limit
TOO_SHORT = f"the time limit approached ({TIME_LIMIT}) before a step was saved"
MOVED = ("PREEMPTED", "REQUEUED", "CANCELLED", "SUSPENDED")  # sacct states that are not failures


def refuse_crash_loop(context: Context) -> None:
    """Raise `CrashLoop` if the last `launch.max_failures` starts failed at the step of this start.

    Only inside a job: elsewhere the user sees the failures. 0 disables it. Call on rank 0 only.
    """
    most = context.cfg.launch.max_failures
    if not most or context.ranks.job_id is None:
        return
    *earlier, now = read_starts(context.folder.starts)
    failed = failed_before(now, earlier, most, start_states)
    if len(failed) < most:
        return
    failures = "; ".join(map(_described, reversed(failed)))
    raise CrashLoop(
        "launch.max_failures",
        most,
        f"crash loop: {most} starts failed at {now.stage}, step {now.step}: {failures}",
        "see their logs. Changing a setting (train.micro_batch_tokens, launch.time, other nodes) "
        "resets the count; launch.max_failures=0 disables the check",
    )


def failed_before(
    now: Start, earlier: Sequence[Start], most: int, states_of: Callable[[str], list[str]]
) -> list[Start]:
    """Return up to `most` starts just before `now` that failed at its step, newest first.

    `states_of` returns Slurm's states of a job's starts; it is called only if the result matters.
    """
    failed: list[Start] = []
    after = now
    for start in reversed(earlier):
        if not start.refused and start.code != EXIT_USER:  # else it never began
            if start.place != now.place or not _may_have_failed(start, after, now):
                break
            failed.append(start)
        after = start
    if len(failed) < most:
        return failed
    unclear = (None, EXIT_REQUEUE)
    states = {start.job: states_of(str(start.job)) for start in failed if start.code in unclear}
    for number, start in enumerate(failed[:most]):
        if start.code in unclear and _was_moved(start, states[start.job]):
            return failed[:number]
    return [replace(start, why=_why(start, states)) for start in failed[:most]]


def _may_have_failed(start: Start, after: Start, now: Start) -> bool:
    """Return whether a start failed, or was killed and restarted by Slurm."""
    if start.code == EXIT_REQUEUE:  # another job may have another limit
        return start.asked == TIME_LIMIT and start.job == now.job
    if start.code is not None:
        return start.code not in CLEAN
    return start.job is not None and start.job == after.job and start.restart < after.restart


def _was_moved(start: Start, states: list[str]) -> bool:
    """Return whether a killed start was removed from its nodes on request."""
    state = states[start.restart] if start.restart < len(states) else ""
    if start.code == EXIT_REQUEUE:  # requeued by its own job script
        return state.startswith("PREEMPTED")
    return state.startswith(MOVED) if state else start.asked is not None


def _why(start: Start, states: dict[str | None, list[str]]) -> str:
    if start.code is not None:
        return TOO_SHORT if start.code == EXIT_REQUEUE else start.why
    known = states.get(start.job, [])
    return f"killed ({known[start.restart]})" if start.restart < len(known) else "killed"


def _described(start: Start) -> str:
    code = "" if start.code is None else f"exit code {start.code}, "
    return f"job {start.job} restart {start.restart} on {start.hosts}: {code}{start.why}"
