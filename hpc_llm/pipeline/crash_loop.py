"""A job that always fails at the same place is stopped, and told why, before it costs more.

Slurm starts a job again when a node is lost, and sites queue jobs ahead; where it is the run itself
that fails (a document that takes all memory, a node that breaks at full load), that goes on until
the hours are spent. `starts.jsonl` knows where each start began and how it ended.

What counts as a failure is narrow. An error or a stall that rank 0 told does, and so does a start
that was killed and that Slurm began again, unless it was moved away: preempted, or requeued by
hand. `sacct` is asked for that; where it does not know, a signal that came before says so. A time
limit that comes before the first step is saved is one too: each restart would meet it again. What
else ended by request, by Ctrl-C, by `scancel` or with a mistake in the command is no failure, and
any changed setting, number of ranks or version of the program resets the count.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from hpc_llm.errors import EXIT_BUDGET, EXIT_REQUEUE, EXIT_USER, CrashLoop
from hpc_llm.pipeline.context import Context
from hpc_llm.pipeline.lock import EXIT_INTERRUPTED
from hpc_llm.rundir import Start, read_starts
from hpc_llm.scheduler import start_states

__all__ = ["failed_before", "refuse_crash_loop"]

IN_ORDER = (0, EXIT_BUDGET, EXIT_REQUEUE, EXIT_INTERRUPTED)
TIME_LIMIT = "SIGUSR1"  # what --signal sends before the limit
TOO_SHORT = f"the time limit came near ({TIME_LIMIT}) before a step was saved"
MOVED = ("PREEMPTED", "REQUEUED", "CANCELLED", "SUSPENDED")  # states of sacct that are no failure


def refuse_crash_loop(context: Context) -> None:
    """Raise `CrashLoop` when the last `launch.max_failures` starts all failed where this begins.

    Only in a job: elsewhere somebody sees it. 0: never. To be called by rank 0.
    """
    most = context.cfg.launch.max_failures
    if not most or context.ranks.job_id is None:
        return
    *earlier, now = read_starts(context.folder.starts)
    failed = failed_before(now, earlier, most, start_states)
    if len(failed) < most:
        return
    told = "; ".join(map(_told, reversed(failed)))
    raise CrashLoop(
        "launch.max_failures",
        most,
        f"crash loop: {most} starts failed at {now.stage}, step {now.step}: {told}",
        "see their logs for the reason. A changed setting (train.micro_batch_tokens, launch.time, "
        "other nodes) resets the count; launch.max_failures=0 continues as it is",
    )


def failed_before(
    now: Start, earlier: Sequence[Start], most: int, states_of: Callable[[str], list[str]]
) -> list[Start]:
    """Return up to `most` starts just before `now` that failed at its place, newest first.

    `states_of` gives Slurm's states of a job's starts; it is asked only if the answer may matter.
    """
    failed: list[Start] = []
    after = now
    for start in reversed(earlier):
        if not start.refused and start.code != EXIT_USER:  # those did not begin
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
    """Tell a failure, or a start that was killed and begun again by Slurm, from what is neither."""
    if start.code == EXIT_REQUEUE:  # another job may have another limit
        return start.asked == TIME_LIMIT and start.job == now.job
    if start.code is not None:
        return start.code not in IN_ORDER
    return start.job is not None and start.job == after.job and start.restart < after.restart


def _was_moved(start: Start, states: list[str]) -> bool:
    """Return whether a killed start was taken off its nodes by request."""
    state = states[start.restart] if start.restart < len(states) else ""
    if start.code == EXIT_REQUEUE:  # the job script has requeued it itself
        return state.startswith("PREEMPTED")
    return state.startswith(MOVED) if state else start.asked is not None


def _why(start: Start, states: dict[str | None, list[str]]) -> str:
    if start.code is not None:
        return TOO_SHORT if start.code == EXIT_REQUEUE else start.why
    known = states.get(start.job, [])
    return f"killed ({known[start.restart]})" if start.restart < len(known) else "killed"


def _told(start: Start) -> str:
    code = "" if start.code is None else f"exit code {start.code}, "
    return f"job {start.job} restart {start.restart} on {start.hosts}: {code}{start.why}"
