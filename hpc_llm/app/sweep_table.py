"""`hpc-llm sweep SWEEP_FOLDER`: state and measures of the trials, as a table and a plot."""

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpc_llm.app.arguments import Arguments
from hpc_llm.app.run_folders import last_words
from hpc_llm.distributed import visible
from hpc_llm.errors import EXIT_REQUEUE, UserError
from hpc_llm.launch import SubmittedJob, newest_chain
from hpc_llm.report import (
    TrialRow,
    best_of,
    draw_sweep,
    main_measure,
    read_results,
    short_names,
    sweep_table,
)
from hpc_llm.rundir import RunFolder, SweepFolder, Trial, read_jsonl, write_text
from hpc_llm.scheduler import JobState, job_states

__all__ = ["print_sweep", "run_sweep_table"]

INTERRUPTED = (EXIT_REQUEUE, 130)


class TrialState(NamedTuple):
    """State of a trial: as text, its outcome (done, failed, open), and the cause."""

    words: str
    outcome: str = "open"
    why: str = ""


def run_sweep_table(arguments: Arguments) -> int:
    """Print the table of a sweep and write its plot to its folder."""
    if len(arguments.overrides) != 1:
        raise UserError("sweep", None, "needs one sweep folder", "use hpc-llm sweep runs/SWEEP")
    folder = SweepFolder(Path(arguments.overrides[0]))
    rows = print_sweep(folder)
    plot = draw_sweep(folder.path.resolve().name, folder.read().keys, rows)
    if plot is not None:
        write_text(folder.picture, plot)
        print(f"  plot {folder.picture}")
    return 0


def print_sweep(folder: SweepFolder) -> list[TrialRow]:
    """Print the table of a sweep, its best trial and the errors of trials; return the rows."""
    from rich.console import Console

    sweep = folder.read()
    chains = {t.number: newest_chain(folder.trial(t.number).jobs) for t in sweep.trials}
    states, remarks = job_states([job.job for jobs in chains.values() for job in jobs])
    for remark in remarks:
        print(f"hpc-llm: {visible(remark)}", file=sys.stderr)
    here = {line["trial"]: line for line in read_jsonl(folder.local)}
    rows, reasons = [], []
    for trial in sweep.trials:
        run = folder.trial(trial.number)
        state = _state(run, trial, chains[trial.number], states, here.get(trial.number))
        results = read_results(run, trial)
        rows.append(
            TrialRow(trial=trial, state=state.words, outcome=state.outcome, results=results)
        )
        reasons += [f"  trial {trial.number}: {state.why}"] if state.why else []
    wide = None if sys.stdout.isatty() else 1000  # do not wrap lines in a pipe
    Console(width=wide, highlight=False).print(sweep_table(sweep.keys, rows))
    print(visible("\n".join([*reasons, *_summary(folder, sweep.keys, rows)])))
    return rows


def _state(
    folder: RunFolder,
    trial: Trial,
    jobs: Sequence[SubmittedJob],
    states: Mapping[str, JobState],
    here: Mapping[str, Any] | None,
) -> TrialState:
    """Return the state of a trial: from its record, else from Slurm or the local sweep's log."""
    done = folder.done(trial.stages)
    left = [name for name in trial.stages if name not in done]
    if not left:
        return TrialState("done", "done")
    at = left[0]
    newest = here and str(here.get("ended") or here.get("begun"))
    if jobs and not (newest and newest > jobs[0].when):
        return _in_queue(folder, jobs, states, at)
    if here is None:
        return TrialState("not started")
    if "ended" not in here:
        if here["host"] == os.uname().nodename and not Path(f"/proc/{here['process']}").exists():
            return TrialState(f"stopped at {at}")
        return TrialState(_runs(folder, at))
    if here["code"] in INTERRUPTED:
        return TrialState(f"stopped at {at}")
    again = f"hpc-llm {here['verb']} --config {folder.config}"
    return TrialState(f"failed at {at}", "failed", f"exit code {here['code']}; rerun: {again}")


def _in_queue(
    folder: RunFolder, jobs: Sequence[SubmittedJob], states: Mapping[str, JobState], at: str
) -> TrialState:
    """Return the state of a trial from its first job that is not completed."""
    for job in jobs:
        state = states.get(job.job)
        if state is None:
            return TrialState(f"unknown, at {at}")
        if state.state == "COMPLETED":
            continue
        if state.state == "PENDING":
            return TrialState(f"pending at {at}" + (f" ({state.reason})" if state.reason else ""))
        if state.is_live:
            return TrialState(_runs(folder, at))
        if state.state == "CANCELLED":
            return TrialState(f"cancelled at {at}")
        code = f"exit code {state.exit_code}" if state.exit_code else state.state
        why = f"job {job.job}, {job.part}, {state.state}: {code}: {last_words(folder, job)}"
        return TrialState(f"failed at {at}", "failed", why)
    return TrialState(f"ended at {at}", "failed", f"all jobs completed, but {at} is not done")


def _runs(folder: RunFolder, at: str) -> str:
    """Return the running stage of a trial, with its step if it is training."""
    name = at.removeprefix("train/")
    newest: dict[str, Any] = {}
    for line in read_jsonl(folder.events):
        if line.get("event") == "train" and line.get("stage") == name:
            newest = line
    if not newest:
        return f"running {at}"
    planned = newest.get("planned_steps")
    return f"running {at}: step {newest.get('step')}" + (f" of {planned}" if planned else "")


def _summary(folder: SweepFolder, keys: Sequence[str], rows: Sequence[TrialRow]) -> Iterator[str]:
    counts = Counter(row.outcome for row in rows)
    states = [f"{counts[kind]} {kind}" for kind in ("done", "failed", "open") if counts[kind]]
    yield f"  {len(rows)} trials: {', '.join(states)}; spent {_spent(rows)}"
    best = best_of(rows)
    if best is None:
        return
    pairs = zip(short_names(keys), keys, strict=True)
    words = " ".join(f"{name}={best.trial.values[key]}" for name, key in pairs)
    yield f"  best: trial {best.trial.number} ({words}), {_measured(best, rows)}"
    model = folder.trial(best.trial.number).model
    if model.is_dir():
        yield f"  model {model}"


def _measured(best: TrialRow, rows: Sequence[TrialRow]) -> str:
    """Return the main measure of the best trial, and the trials within its interval."""
    name = main_measure(rows) or ""
    measure = best.results.measures[name]
    text = f"{name} {measure['value']:.3f} {measure['unit']}"
    low, high = measure["low"], measure["high"]
    if low is None or high is None:
        return text
    others = [row for row in rows if row is not best and row.outcome == "done"]
    values = {row.trial.number: row.value(name) for row in others}
    near = [str(number) for number, v in values.items() if v is not None and low <= v <= high]
    within = f"; its interval also contains trials {', '.join(near)}" if near else ""
    return f"{text}, {low:.3f} to {high:.3f}{within}"


def _spent(rows: Sequence[TrialRow]) -> str:
    """Return total hours and money of all trials."""
    hours: defaultdict[str, float] = defaultdict(float)
    money: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        results = row.results
        if results.hours:
            hours[results.unit] += results.hours
        if results.amount is not None:
            money[results.currency] += results.amount
    parts = [f"{amount:.3g} {unit}" for sums in (hours, money) for unit, amount in sums.items()]
    return ", ".join(parts) or "nothing yet"
