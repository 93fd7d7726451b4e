"""Verify the files of finished stages before they are read or reported as finished.

Each start verifies them once, on rank 0: sizes and SHA-256, as recorded by the stage. A stage with
a damaged or missing file runs again; the stages after it only if its files then differ from those
they were made from. Stages recorded by an earlier version have no hashes and are not verified.
"""

from collections.abc import Sequence

from hpc_llm.distributed import say
from hpc_llm.errors import UserError
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.pipeline.todo import is_done, is_stale, refuse_missing, wanted
from hpc_llm.report import journal_problems
from hpc_llm.rundir import Damage, RunFolder, find_damage, write_json
from hpc_llm.rundir.inventory import RESULT

__all__ = ["damage_of", "refuse_damaged", "verified_todo"]


def verified_todo(
    folder: RunFolder, stages: Sequence[Stage], chosen: Sequence[Stage], verb: str
) -> list[str]:
    """Return the names of the stages to run for `verb`: unfinished or damaged ones of `chosen`.

    Verifies the chosen stages that are finished, and those whose results the others read; reports
    each damaged one. Raises `UserError` if one of these is damaged and not chosen.
    """
    for problem in journal_problems(folder):
        say(problem)
    _report_unrecorded(folder, stages)
    requested = wanted(chosen, verb)
    damaged = [stage.name for stage in requested if _is_damaged(folder, stage, runs_again=True)]
    records = folder.records()
    undone = [stage for stage in stages if not is_done(folder, records, stage)]
    again = {*damaged, *(stage.name for stage in undone)}
    todo = [stage for stage in requested if stage.name in again]
    read = {name for stage in todo for name in stage.upstream}
    read -= {stage.name for stage in requested}
    refuse_damaged(folder, [stage for stage in stages if stage.name in read])
    refuse_missing(todo, undone)
    return [stage.name for stage in todo]


def _report_unrecorded(folder: RunFolder, stages: Sequence[Stage]) -> None:
    """Report stages whose record is lost: their files exist, and they run again."""
    records = folder.records()
    lost = [
        stage.name
        for stage in stages
        if stage.name not in records
        and all((folder.path / output).exists() for output in stage.outputs)
    ]
    if lost:
        say(f"{folder.record}: has no record of {', '.join(lost)}, whose files exist")


def damage_of(folder: RunFolder, stage: Stage) -> list[Damage]:
    """Return the damaged files of a stage that is finished with these settings; [] if it is not."""
    records = folder.records()
    record = records.get(stage.name, {})
    if record.get("fingerprint") != stage.fingerprint or is_stale(records, stage):
        return []
    return find_damage(folder.path, record.get("files", {}))


def refuse_damaged(folder: RunFolder, stages: Sequence[Stage]) -> None:
    """Raise `UserError` for the first of `stages` with a damaged file."""
    for stage in stages:
        _is_damaged(folder, stage, runs_again=False)


def _is_damaged(folder: RunFolder, stage: Stage, *, runs_again: bool) -> bool:
    """Return whether a finished stage must run again, and report its damage.

    Raises `UserError` if it does not run again.
    """
    damage = damage_of(folder, stage)
    if not damage or _restored(folder, stage, damage):
        return False
    more = f" (and {len(damage) - 1} more files of {stage.name})" if len(damage) > 1 else ""
    path, problem = folder.path / damage[0].file, damage[0].problem + more
    if not runs_again:
        fix = f"run hpc-llm adapt or hpc-llm {stage.verb} with the same settings"
        raise UserError(str(path), None, problem, fix)
    say(f"{path}: {problem}; running {stage.name} again")
    return True


def _restored(folder: RunFolder, stage: Stage, damage: Sequence[Damage]) -> bool:
    """Restore `done.json` from the record of a training stage; return whether nothing else is
    damaged, and it is then as it was."""
    name, record = f"{stage.name}/{RESULT}", folder.finished(stage.name)
    if record is None or [one.file for one in damage] != [name]:
        return False
    write_json(folder.path / name, record["result"])
    if find_damage(folder.path, {name: record["files"][name]}):
        return False
    say(f"{folder.path / name}: {damage[0].problem}; restored from {folder.record.name}")
    return True
