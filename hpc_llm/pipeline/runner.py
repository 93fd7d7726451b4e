"""Run the stages of a run folder that are not done yet, each once, and record them."""

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any, TypeVar

from hpc_llm.distributed import say
from hpc_llm.errors import BudgetSpent, Stopped
from hpc_llm.pipeline.account import measure_energy
from hpc_llm.pipeline.cache import SharedCache
from hpc_llm.pipeline.changed import is_begun, move_changed_aside
from hpc_llm.pipeline.context import Context, commit, versions
from hpc_llm.pipeline.crash_loop import refuse_crash_loop
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.pipeline.todo import refuse_missing, unfinished, wanted
from hpc_llm.rundir import RunFolder, join_start, start_number

__all__ = ["run", "run_rerun"]

Result = TypeVar("Result")


def run(context: Context, verb: str) -> int:
    """Run the chosen stages of `verb` (adapt: all) that are not done; return how many were run."""
    asked = wanted(context.chosen, verb)
    todo = unfinished(context.folder, context.chosen, verb)
    refuse_missing(todo, {s.name for s in unfinished(context.folder, context.stages, "adapt")})
    _say_plan(context, asked, todo)
    alone = context.ranks.world_size == 1 and all(stage.row.light for stage in todo)
    with nullcontext() if alone else _met(context):
        _begin(context, todo)
        for stage in todo:
            _stop_if_agreed(context)
            with _billed(context, stage):
                _run_stage(context, stage)
    return len(todo)


def run_rerun(context: Context) -> bool:
    """Repeat the step of `cfg.rerun`, print how it compares, and return whether it agrees."""
    with _met(context):
        rerun = importlib.import_module("hpc_llm.stages.rerun").rerun
        told, agrees = rerun(context)
    if context.ranks.is_first:
        context.account.add("rerun", reason="end")
        print(told, end="")
    return bool(agrees)


def _begin(context: Context, todo: list[Stage]) -> None:
    """Refuse what cannot train, and a crash loop, before the first stage runs (collective)."""
    if any(stage.all_ranks for stage in todo):
        check_zero = importlib.import_module("hpc_llm.training.zero").check_zero
        check_zero(context.cfg.train, context.cfg.zero, context.ranks.world_size)
    if todo and context.ranks.is_first:
        context.account.add("start", reason="start")
    if todo:
        _on_first_rank(context, lambda: refuse_crash_loop(context))


@contextmanager
def _billed(context: Context, stage: Stage) -> Iterator[None]:
    """Bill the rest of a stage's time, however it ends."""
    reason = "stop"
    try:
        yield
        reason = "end"
    finally:
        if context.ranks.is_first:
            context.account.add(stage.name, reason=reason)


@contextmanager
def _met(context: Context) -> Iterator[None]:
    """Start torch and the process group, in which ranks wait for the work of rank 0.

    It is left in good order when the work is done or all ranks stop; not after a failure.
    """
    from hpc_llm.training import process_group

    process_group.start(context.ranks, context.cfg.train.threads)
    join_start(process_group.broadcast_status(start_number()))
    context.account.found(process_group.device_name(), process_group.device_uuid())
    process_group.barrier()  # all have read the record before rank 0 changes it
    try:
        yield
    except Stopped:
        process_group.end()
        raise
    process_group.end()


def _say_plan(context: Context, wanted: list[Stage], todo: list[Stage]) -> None:
    folder = context.folder
    if not todo:
        say(f"{folder.path}: nothing to do, all {len(wanted)} stages are done with these settings")
    elif len(todo) < len(wanted):
        names = ", ".join(stage.name for stage in wanted if stage not in todo)
        say(f"{folder.path}: already done and kept: {names}")


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
    """Take a stage from the shared cache and return its result; None: it is to be computed.

    Rank 0 looks, and holds the lock of the entry until `held` ends. Collective.
    """
    if not _is_shared(context, stage):
        return None
    cache = SharedCache.of(context.cfg.runs_dir)

    def look() -> dict[str, Any]:
        held.enter_context(cache.hold(stage, context.stop_reason))
        record = cache.take(stage, context.folder)
        if record is None:
            return {}
        line = _line(record["result"])
        return {"result": {**record["result"], "linked": True, "line": f"{line} (linked)"}}

    found = _on_first_rank(context, look)
    return found["result"] if found else None


def _on_first_rank(context: Context, work: Callable[[], Result]) -> Result:
    """Let rank 0 work while the others wait; return its result. One rank alone needs no torch."""
    if context.ranks.world_size == 1:
        return work()
    from hpc_llm.training import process_group

    return process_group.on_first_rank(work)


def _stop_if_agreed(context: Context) -> None:
    """Raise `Stopped` or `BudgetSpent` before the next stage, where any rank is to stop."""
    reason = context.stop_reason()
    limit = context.account.over_budget() if context.ranks.is_first else None
    asked = [int(reason is not None), int(limit is not None)]
    if context.ranks.world_size > 1:
        from hpc_llm.training import process_group

        asked = process_group.all_sum(asked)
    if asked[1]:
        raise BudgetSpent(limit or "rank 0 names the limit")
    if asked[0]:
        raise Stopped(reason or "another rank was asked to stop")


def _set_aside(folder: RunFolder, stage: Stage) -> None:
    """Move what an earlier run with other settings left, so that nothing is overwritten."""
    record = folder.finished(stage.name)
    if record is None or record["fingerprint"] == stage.fingerprint or is_begun(folder, stage):
        return
    for name in stage.owns:
        if moved := folder.supersede(name):
            say(f"{stage.name}: settings changed; the earlier result is kept in {moved}")


def _line(result: dict[str, Any]) -> str:
    return str(result.get("line", ""))
