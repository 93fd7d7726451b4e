"""`hpc-llm status RUN_FOLDER ...`: jobs, progress and cost of a run."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hpc_llm.app.arguments import Arguments
from hpc_llm.app.run_folders import known_folder, last_words
from hpc_llm.distributed import visible
from hpc_llm.errors import UserError
from hpc_llm.launch import SubmittedJob, newest_chain
from hpc_llm.rundir import RunFolder, SweepFolder, read_jsonl
from hpc_llm.scheduler import JobState, job_states

__all__ = ["run_status"]

# Explanations of Slurm's pending reasons; others are printed unchanged
REASONS = {
    "Resources": "waiting for free nodes",
    "Priority": "waiting for jobs with higher priority",
    "BeginTime": "requeued, restarts soon",
    "JobHeldUser": "held: scontrol release {job}",
    "JobHeldAdmin": "held by an administrator",
    "DependencyNeverSatisfied": "cannot start: a job before it failed",
    "PartitionTimeLimit": "cannot start: its time limit is above the partition's",
    "PartitionNodeLimit": "cannot start: more nodes than the partition allows",
    "ReqNodeNotAvail": "waiting: required nodes are down, reserved or in use",
}


def run_status(arguments: Arguments) -> int:
    """Print jobs, progress and cost of each run folder on the command line."""
    if not arguments.overrides:
        raise UserError(
            "status",
            None,
            "no run folder",
            "pass some, for example hpc-llm status runs/*",
        )
    for number, word in enumerate(arguments.overrides):
        if (sweep := SweepFolder(Path(word))).exists():
            from hpc_llm.app.sweep_table import print_sweep

            print("\n" * bool(number) + f"{word}: a sweep")
            print_sweep(sweep)
            continue
        try:
            folder = known_folder(word)
        except UserError as error:
            if len(arguments.overrides) == 1:
                raise
            print(f"hpc-llm: {visible(str(error))}; skipped", file=sys.stderr)
            continue
        print("\n" * bool(number) + visible("\n".join(_lines(folder))))
    return 0


def _lines(folder: RunFolder) -> Iterator[str]:
    jobs = newest_chain(folder.jobs)
    states, remarks = job_states([job.job for job in jobs])
    for remark in remarks:
        print(f"hpc-llm: {visible(remark)}", file=sys.stderr)
    if jobs:
        when = datetime.fromisoformat(jobs[0].when).astimezone().strftime("%Y-%m-%d %H:%M")
        count = "1 job" if len(jobs) == 1 else f"a chain of {len(jobs)} jobs"
        yield f"{folder.path}: {count}, submitted {when}"
    else:
        yield f"{folder.path}: no Slurm job was submitted for this run"
    rows = [_row(folder, job, states, jobs) for job in jobs]
    widths = [max(len(row[place]) for row in rows) for place in range(4)] if rows else []
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row[:4], widths, strict=True))
        yield f"  {'  '.join([*cells, row[4]])}".rstrip()
    yield from (f"  {line}" for line in _progress(folder, _running_since(jobs, states)))
    yield f"  {_spent(folder)}"


def _row(
    folder: RunFolder,
    job: SubmittedJob,
    states: Mapping[str, JobState],
    jobs: Sequence[SubmittedJob],
) -> tuple[str, str, str, str, str]:
    """Return job, part, state, nodes and details."""
    records = read_jsonl(folder.record)
    done = {line.get("stage") for line in records if str(line.get("started")) >= job.when}
    count = len(done.intersection(job.stages))
    stages = f"{count} of {len(job.stages)} stages done"
    state = states.get(job.job)
    if state is None:
        return job.job, job.part, "unknown", "-", stages
    details = [_details(folder, job, state, states)]
    if state.state != "PENDING" or count:
        details.append(stages)
    return job.job, job.part, state.state, state.nodes or "-", "; ".join(filter(None, details))


def _details(
    folder: RunFolder, job: SubmittedJob, state: JobState, states: Mapping[str, JobState]
) -> str:
    """Return why a job is pending, how long it has been running, or how it ended."""
    if state.state == "PENDING":
        return _waits(job, state)
    if state.is_live:
        limit = f" of {state.limit}" if state.limit else ""
        return f"for {state.elapsed}{limit}"
    if state.state == "CANCELLED" and state.elapsed in ("0:00", "00:00:00"):
        before = [states[one].state for one in job.after if one in states]
        ended = any(word not in ("COMPLETED", "PENDING", "RUNNING") for word in before)
        return "never started: the job before it failed" if ended else "never started"
    if state.state == "COMPLETED":
        return f"in {state.elapsed}"
    code = f"exit code {state.exit_code}" if state.exit_code else ""
    return ": ".join(filter(None, (code, last_words(folder, job))))


def _waits(job: SubmittedJob, state: JobState) -> str:
    if state.reason == "Dependency":
        return f"waiting for {', '.join(job.after)}" if job.after else "waiting for another job"
    reason = state.reason.split(",")[0]
    text = REASONS.get(reason, f"waiting: {state.reason}" if reason else "waiting")
    expected = f", expected at {state.start}" if state.start else ""
    return text.replace("{job}", job.job) + expected


def _running_since(jobs: Sequence[SubmittedJob], states: Mapping[str, JobState]) -> float | None:
    """Return the start time of the running job in seconds since 1970; None if none is running.

    A run without jobs is assumed to run locally.
    """
    if not jobs:
        return 0.0
    starts = [state.start for state in states.values() if state.state == "RUNNING"]
    return datetime.fromisoformat(starts[0]).timestamp() if starts and starts[0] else None


def _progress(folder: RunFolder, since: float | None) -> Iterator[str]:
    """Yield the training progress, from the newest line of events.jsonl; running `since`."""
    newest: dict[str, Any] = {}
    before: dict[str, Any] = {}
    for line in read_jsonl(folder.events):
        if line.get("event") == "train":
            newest, before = line, newest if line.get("stage") == newest.get("stage") else {}
    if not newest:
        return
    stage, step, planned = newest["stage"], newest.get("step", 0), newest.get("planned_steps")
    metrics = newest.get("metrics", {})
    parts = [f"train/{stage}: step {step}" + (f" of {planned}" if planned else "")]
    if isinstance(loss := metrics.get("train/loss"), float):
        parts.append(f"loss {loss:.3f}")
    if since is not None and (left := _seconds_left(newest, before, since)) is not None:
        from hpc_llm.tracking import duration

        parts.append(f"{left[0]} ends in about {duration(left[1])}")
    yield ", ".join(parts)


def _seconds_left(
    newest: Mapping[str, Any], before: Mapping[str, Any], since: float
) -> tuple[str, float] | None:
    """Return what ends next and in how many seconds; None if unknown.

    After 50 steps the run projects all its training; until then the last interval is extrapolated
    for this stage.
    """
    ago = time.time() - max(newest["time"], since)  # a restarted job was pending in between
    hours = newest.get("metrics", {}).get("cost/hours_left")
    if hours:
        return "training", max(0.0, 3600 * hours - ago)
    if not before or "planned_steps" not in newest:
        return None
    planned, step, last = newest["planned_steps"], newest["step"], before["step"]
    if not last < step < planned:
        return None
    rate = (newest["time"] - before["time"]) / (step - last)
    return "the stage", max(0.0, rate * (planned - step) - ago)


def _spent(folder: RunFolder) -> str:
    """Return the cost so far, from the ledger."""
    from hpc_llm.accounting import Ledger, cost_report, middle_price

    if not Ledger(folder.ledger).rows():
        return "spent: nothing yet"
    costs = cost_report(folder.path)
    hours = costs.totals.spent.device_hours
    if costs.hardware is None:
        return f"spent: {hours:.3g} device-hours"
    unit = "GPU-hours" if costs.hardware.kind == "gpu" else "core-hours"
    money = costs.money(middle_price(costs.hardware))
    cost = "" if money is None else f", {money:.3g} {costs.hardware.currency}"
    return f"spent: {hours:.3g} {unit}{cost}"
