"""Run the stages of a run folder that are not done yet, each once, and record them."""

import importlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from hpc_llm.distributed import Ranks, StopFlag, say, unreached
from hpc_llm.errors import BudgetSpent, FirstRankFailed, Stopped, UserError, exit_code
from hpc_llm.pipeline.account import Account, measure_energy
from hpc_llm.pipeline.changed import is_begun, move_changed_aside
from hpc_llm.pipeline.context import Context, commit, versions
from hpc_llm.pipeline.crash_loop import refuse_no_progress
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.pipeline.lock import begun_here, hold_folder
from hpc_llm.rundir import RunFolder, Start, join_start, note_start, start_number
from hpc_llm.settings import RunConfig
from hpc_llm.tracking import EventLog, NoView, WandbView, open_view

__all__ = ["open_context", "refuse_missing", "run", "run_rerun", "unfinished"]


@contextmanager
def open_context(
    cfg: RunConfig,
    stages: Sequence[Stage],
    folder: RunFolder,
    ranks: Ranks,
    verb: str,
    chosen: Sequence[Stage] | None = None,
) -> Iterator[Context]:
    """Give the surroundings of a run; inside the block its folder is locked.

    `chosen`: no other stages are to be run. W&B is open too, where `verb` has something to do.
    """
    chosen = stages if chosen is None else chosen
    stop_file = folder.path / "stop" if ranks.is_first else None
    hours = cfg.train.max_hours
    deadline = None if hours is None else time.time() + 3600 * hours
    flag = StopFlag(
        stop_file=stop_file,
        deadline=deadline,
        deadline_name="train.max_hours",
        told=_note_request(folder) if ranks.is_first else None,
    )
    todo = unfinished(folder, chosen, verb)
    start = begun_here(cfg, folder, ranks, todo) if ranks.is_first else Start()
    with hold_folder(folder, ranks, start), flag:
        view: WandbView | NoView = NoView()
        if ranks.is_first and todo:
            with unreached():
                name = cfg.run or folder.path.name
                view = open_view(cfg.tracking, folder.path, name, asdict(cfg))
        try:
            yield Context(
                stages=tuple(stages),
                chosen=tuple(chosen),
                cfg=cfg,
                folder=folder,
                ranks=ranks,
                events=EventLog(folder.events),
                view=view,
                stop_reason=lambda: flag.reason,
                base=cfg.model.path or folder.path / f"train/{cfg.pretraining}" / "model",
                account=Account(cfg, folder.ledger, ranks, uuid.uuid4().hex[:12]),
            )
        finally:
            view.close()


def _note_request(folder: RunFolder) -> Callable[[str], None]:
    return lambda reason: note_start(folder.starts, "asked", reason=reason)


def run(context: Context, verb: str) -> int:
    """Run the chosen stages of `verb` (adapt: all) that are not done; return how many were run."""
    wanted = _wanted(context.chosen, verb)
    todo = unfinished(context.folder, context.chosen, verb)
    refuse_missing(todo, {s.name for s in unfinished(context.folder, context.stages, "adapt")})
    _say_plan(context, wanted, todo)
    if context.ranks.world_size == 1 and all(stage.row.light for stage in todo):
        _run_stages(context, todo)
    else:
        with _met(context):
            _check_training(context, todo)
            _run_stages(context, todo)
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


def _check_training(context: Context, todo: list[Stage]) -> None:
    """Raise `UserError` for what DeepSpeed will not take, before the first stage is run."""
    if any(stage.all_ranks for stage in todo):
        check_zero = importlib.import_module("hpc_llm.training.zero").check_zero
        check_zero(context.cfg.train, context.cfg.zero, context.ranks.world_size)


def _run_stages(context: Context, todo: list[Stage]) -> None:
    if todo and context.ranks.is_first:
        context.account.add("start", reason="start")
    if todo:
        _on_first_rank(context, lambda: refuse_no_progress(context))
    for stage in todo:
        _stop_if_agreed(context)
        with _billed(context, stage):
            _run_stage(context, stage)


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


def _wanted(stages: Sequence[Stage], verb: str) -> list[Stage]:
    return [stage for stage in stages if verb in ("adapt", stage.verb)]


def refuse_missing(todo: Sequence[Stage], undone: set[str]) -> None:
    """Raise `UserError` where a stage reads the result of one that is neither done nor to be."""
    missing = undone - {stage.name for stage in todo}
    for stage in todo:
        if needs := [need for need in stage.needs if need in missing]:
            raise UserError(
                f"{stage.name}: needs {', '.join(needs)} first; run hpc-llm adapt, or those verbs, "
                "with the same settings"
            )


def unfinished(folder: RunFolder, stages: Sequence[Stage], verb: str) -> list[Stage]:
    """Return the stages of `verb` (adapt: all) that are not done with these settings."""
    return [stage for stage in _wanted(stages, verb) if not _is_done(folder, stage)]


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


def _is_done(folder: RunFolder, stage: Stage) -> bool:
    record = folder.finished(stage.name)
    return (
        record is not None
        and record["fingerprint"] == stage.fingerprint
        and all((folder.path / output).exists() for output in stage.outputs)
    )


def _say_plan(context: Context, wanted: list[Stage], todo: list[Stage]) -> None:
    folder = context.folder
    if not todo:
        say(f"{folder.path}: nothing to do, all {len(wanted)} stages are done with these settings")
    elif len(todo) < len(wanted):
        names = ", ".join(stage.name for stage in wanted if stage not in todo)
        say(f"{folder.path}: already done and kept: {names}")


def _run_stage(context: Context, stage: Stage) -> None:
    work: Callable[[Context, str], dict[str, Any]]
    work = importlib.import_module(f"hpc_llm.stages.{stage.row.module}").run
    if context.ranks.is_first:
        _set_aside(context.folder, stage)
        move_changed_aside(context.folder, stage)
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    if stage.all_ranks:
        result = work(context, stage.name)
    else:
        result = _on_first_rank(context, lambda: work(context, stage.name))
    measure_energy(context.account, context.ranks)
    seconds = time.monotonic() - began
    if not context.ranks.is_first:
        return
    context.folder.write_record(
        {
            "stage": stage.name,
            "fingerprint": stage.fingerprint,
            "started": started,
            "seconds": round(seconds, 3),
            "result": result,
            "versions": versions(),
            "commit": commit(),
        }
    )
    context.events.append(
        "stage", stage=stage.name, axes={"wall_seconds": seconds}, metrics={"seconds": seconds}
    )
    context.view.update()
    say(f"{stage.name:<20} {_line(result):<60} {seconds:7.1f} s")


def _on_first_rank(context: Context, work: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    """Let rank 0 work while the others wait; when it fails, all end."""
    if context.ranks.world_size == 1:
        return work() or {}
    from hpc_llm.training import process_group

    result: dict[str, Any] = {}
    failure: Exception | None = None
    if context.ranks.is_first:
        try:
            result = work() or {}
        except Exception as error:  # told to the other ranks, then raised again
            failure = error
    code = process_group.broadcast_status(exit_code(failure) if failure else 0)
    if failure:
        raise failure
    if code:
        raise FirstRankFailed(code)
    return result


def _stop_if_agreed(context: Context) -> None:
    """Raise `Stopped` or `BudgetSpent` before the next stage, where any rank is to stop."""
    reason = context.stop_reason()
    limit = context.account.over_budget() if context.ranks.is_first else None
    asked = [int(reason is not None), int(limit is not None)]
    if context.ranks.world_size > 1:
        from hpc_llm.training import process_group

        asked = process_group.all_sum(asked)
    if asked[1]:
        raise BudgetSpent(limit or "rank 0 tells which limit")
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
