"""Run and record the unfinished stages of a run folder, each once."""

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from hpc_llm.distributed import say, visible
from hpc_llm.errors import BudgetSpent, Stopped
from hpc_llm.pipeline.account import measure_energy
from hpc_llm.pipeline.cache import SharedCache
from hpc_llm.pipeline.changed import is_begun, move_changed_aside
from hpc_llm.pipeline.context import Context, commit, versions
from hpc_llm.pipeline.crash_loop import refuse_crash_loop
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.pipeline.integrity import refuse_damaged, verified_todo
from hpc_llm.pipeline.todo import inputs_of, is_done, is_stale, wanted
from hpc_llm.rundir import RunFolder, join_start, start_number, system_errors, take_inventory

__all__ = ["run", "run_rerun"]

Result = TypeVar("Result")


def run(context: Context, verb: str) -> int:
    """Run the chosen unfinished or damaged stages of `verb` (adapt: all); return their number."""
    requested = wanted(context.chosen, verb)
    with ExitStack() as held:
        grouped = context.ranks.world_size > 1
        if grouped:
            held.enter_context(_process_group(context))
        todo = _verified_todo(context, verb)
        _say_plan(context, requested, todo)
        if not grouped and not all(stage.row.light for stage in todo):
            held.enter_context(_process_group(context))
            grouped = True
        _begin(context, todo)
        ran = 0
        for stage in requested:
            if stage not in todo and not (ran and _is_outdated(context, stage)):
                continue
            if not grouped and not stage.row.light:
                held.enter_context(_process_group(context))
                grouped = True
            _stop_if_requested(context)
            with _charged(context, stage):
                _run_stage(context, stage)
            ran += 1
    return ran


def _verified_todo(context: Context, verb: str) -> list[Stage]:
    """Return the stages to run, after rank 0 has verified the files of the others (collective)."""
    folder, stages, chosen = context.folder, context.stages, context.chosen
    names = _on_first_rank(context, lambda: verified_todo(folder, stages, chosen, verb))
    return [stage for stage in chosen if stage.name in names]


def _is_outdated(context: Context, stage: Stage) -> bool:
    """Return whether a finished stage must follow one that just ran again (collective)."""
    folder = context.folder
    return not _on_first_rank(context, lambda: is_done(folder, folder.records(), stage))


def run_rerun(context: Context) -> bool:
    """Rerun the step of `cfg.rerun`, print the comparison, and return whether it matches."""
    with _process_group(context):
        name = f"train/{context.cfg.rerun.stage or context.cfg.adaptation[-1]}"
        read = {need for one in context.stages if one.name == name for need in one.upstream}
        inputs = [stage for stage in context.stages if stage.name in read]
        _on_first_rank(context, lambda: refuse_damaged(context.folder, inputs))
        rerun = importlib.import_module("hpc_llm.stages.rerun").rerun
        text, matches = rerun(context)
    if context.ranks.is_first:
        context.account.add("rerun", reason="end")
        print(visible(text), end="")
    return bool(matches)


def _begin(context: Context, todo: list[Stage]) -> None:
    """Check the DeepSpeed settings and for a crash loop before the first stage (collective)."""
    if any(stage.trains for stage in todo):
        check_zero = importlib.import_module("hpc_llm.training.zero").check_zero
        check_zero(context.cfg.train, context.cfg.zero, context.ranks, context.layout.data)
    if todo and context.ranks.is_first:
        context.account.add("start", reason="start")
    if todo:
        _on_first_rank(context, lambda: refuse_crash_loop(context))


@contextmanager
def _charged(context: Context, stage: Stage) -> Iterator[None]:
    """Charge the rest of a stage's time to the account, however it ends."""
    reason = "stop"
    try:
        yield
        reason = "end"
    finally:
        if context.ranks.is_first:
            context.account.add(stage.name, reason=reason)
            costs = context.account.costs(context.cfg.cluster.carbon_g_per_kwh)
            context.events.append("cost", stage=stage.name, axes={}, metrics=costs)


@contextmanager
def _process_group(context: Context) -> Iterator[None]:
    """Initialise torch and the process group, in which ranks wait for the work of rank 0.

    It is destroyed cleanly when the work is done or all ranks stop, but not after a failure.
    """
    from hpc_llm.training import process_group

    process_group.start(context.ranks, context.cfg.train.threads)
    join_start(process_group.broadcast_status(start_number()))
    context.account.found(process_group.device_name(), process_group.device_uuid())
    process_group.barrier()  # all ranks have read the record before rank 0 changes it
    try:
        yield
    except Stopped:
        process_group.end()
        raise
    process_group.end()


def _say_plan(context: Context, wanted: list[Stage], todo: list[Stage]) -> None:
    folder = context.folder
    if not todo:
        say(f"{folder.path}: nothing to do: all {len(wanted)} stages are done with these settings")
    elif len(todo) < len(wanted):
        names = ", ".join(stage.name for stage in wanted if stage not in todo)
        say(f"{folder.path}: skipping finished stages: {names}")


def _run_stage(context: Context, stage: Stage) -> None:
    if context.ranks.is_first:
        _set_aside(context.folder, stage)
        move_changed_aside(context.folder, stage)
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    with ExitStack() as held:
        result = _linked(context, stage, held)
        computed = result is None
        if result is None:
            work = importlib.import_module(f"hpc_llm.stages.{stage.row.module}").run
            with system_errors(context.stage_folder(stage.name)):  # of libraries, without a path
                if stage.all_ranks:
                    result = work(context, stage.name)
                else:
                    result = _on_first_rank(context, lambda: work(context, stage.name))
            measure_energy(context.account, context.ranks)
        assert result is not None
        seconds = time.monotonic() - began
        if not context.ranks.is_first:
            return
        record = {
            "stage": stage.name,
            "fingerprint": stage.fingerprint,
            "started": started,
            "seconds": round(seconds, 3),
            "result": result,
            "versions": versions(),
            "commit": commit(),
            "segment": context.account.segment,
            "inputs": inputs_of(context.folder.records(), stage),
            "files": take_inventory(context.folder.path, stage.owns),
        }
        context.folder.write_record(record)
        if computed and _is_shared(context, stage):
            SharedCache.of(context.cfg.runs_dir).keep(stage, context.folder, record)
    context.events.append(
        "stage", stage=stage.name, axes={"wall_seconds": seconds}, metrics={"seconds": seconds}
    )
    context.view.update()
    say(f"{stage.name:<20} {_line(result):<60} {seconds:7.1f} s")


def _is_shared(context: Context, stage: Stage) -> bool:
    return context.cfg.cache and stage.row.shared


def _linked(context: Context, stage: Stage, held: ExitStack) -> dict[str, Any] | None:
    """Link a stage from the shared cache and return its result; None: it must be computed.

    Rank 0 looks it up and holds the lock of the entry until `held` is closed. Collective.
    """
    if not _is_shared(context, stage):
        return None
    cache = SharedCache.of(context.cfg.runs_dir)

    def look() -> dict[str, Any]:
        held.enter_context(cache.hold(stage, context.stop_reason))
        inputs = inputs_of(context.folder.records(), stage)
        record = cache.take(stage, context.folder, inputs)
        if record is None:
            return {}
        line = _line(record["result"])
        return {"result": {**record["result"], "linked": True, "line": f"{line} (linked)"}}

    found = _on_first_rank(context, look)
    return found["result"] if found else None


def _on_first_rank(context: Context, work: Callable[[], Result]) -> Result:
    """Run `work` on rank 0 and return its result on all ranks; a single rank needs no torch."""
    if context.ranks.world_size == 1:
        return work()
    from hpc_llm.training import process_group

    return process_group.on_first_rank(work)


def _stop_if_requested(context: Context) -> None:
    """Raise `Stopped` or `BudgetSpent` before the next stage if any rank must stop."""
    reason = context.stop_reason()
    limit = context.account.over_budget() if context.ranks.is_first else None
    requests = [int(reason is not None), int(limit is not None)]
    if context.ranks.world_size > 1:
        from hpc_llm.training import process_group

        requests = process_group.all_sum(requests)
    if requests[1]:
        raise BudgetSpent(limit or "rank 0 reports the limit")
    if requests[0]:
        raise Stopped(reason or "another rank received a stop request")


def _set_aside(folder: RunFolder, stage: Stage) -> None:
    """Move results with other settings or inputs aside, so that nothing is overwritten."""
    records = folder.records()
    record = records.get(stage.name)
    if record is None:
        return
    what = "settings" if record["fingerprint"] != stage.fingerprint else "inputs"
    if what == "settings" and is_begun(folder, stage):
        return
    if what == "inputs" and not is_stale(records, stage):
        return
    for name in stage.owns:
        if moved := folder.supersede(name):
            say(f"{stage.name}: {what} changed; the earlier result is kept in {moved}")
    if what == "inputs":  # a start that resumes must not do this again
        folder.void_record(stage.name, "inputs changed")


def _line(result: dict[str, Any]) -> str:
    return str(result.get("line", ""))
