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
from hpc_llm.rundir import Damage, RunFolder, damaged_lines, find_damage, write_json
from hpc_llm.rundir.inventory import RESULT

__all__ = ["damage_of", "refuse_damaged", "verified_todo"]


def verified_todo(
    folder: RunFolder, stages: Sequence[Stage], chosen: Sequence[Stage], verb: str
) -> list[str]:
    """Return the names of the stages to run for `verb`: unfinished or damaged ones of `chosen`.

    Verifies the chosen stages that are finished, and those whose results the others read; reports
    each damaged one. Raises `UserError` if one of these is damaged and not chosen.
    """
    for path in (folder.record, folder.ledger, folder.events):
        if count := damaged_lines(path):
            lines = "1 damaged line is" if count == 1 else f"{count} damaged lines are"
            say(f"{path}: {lines} skipped")
    records = folder.records()
    undone = {stage.name for stage in stages if not is_done(folder, records, stage)}
    requested = wanted(chosen, verb)
    names = [stage.name for stage in requested]
    todo = {name for name in names if name in undone}
    for stage in reversed(stages):  # a damaged stage needs those before it
        is_read = any(stage.name in other.upstream for other in requested if other.name in todo)
        if stage.name not in names and (not is_read or stage.name in undone):
            continue
        if (damage := damage_of(folder, stage)) and not _restored(folder, stage, damage):
            _report(folder, stage, damage, runs_again=stage.name in names)
            todo.add(stage.name)
    refuse_missing([stage for stage in requested if stage.name in todo], undone)
    return [name for name in names if name in todo]


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
        if damage := damage_of(folder, stage):
            _report(folder, stage, damage, runs_again=False)


def _report(folder: RunFolder, stage: Stage, damage: Sequence[Damage], *, runs_again: bool) -> None:
    more = f" (and {len(damage) - 1} more files of {stage.name})" if len(damage) > 1 else ""
    first = damage[0]
    if not runs_again:
        fix = f"run hpc-llm adapt or hpc-llm {stage.verb} with the same settings"
        raise UserError(str(folder.path / first.file), None, first.problem + more, fix)
    say(f"{folder.path / first.file}: {first.problem}{more}; running {stage.name} again")


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
