"""Unfinished stages of a run folder: stages without a record of the current settings and inputs."""

from collections.abc import Mapping, Sequence
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.rundir import RunFolder, content_of

__all__ = ["inputs_of", "is_done", "is_stale", "refuse_missing", "unfinished", "wanted"]

Records = Mapping[str, Mapping[str, Any]]

WHOLE = ("adapt", "compose")  # verbs that run all stages
FEW = 2  # verbs that an error lists; if more are missing, it names adapt


def wanted(stages: Sequence[Stage], verb: str) -> list[Stage]:
    """Return the stages of a verb; adapt and compose: all of their run."""
    return [stage for stage in stages if verb in (*WHOLE, stage.verb)]


def refuse_missing(todo: Sequence[Stage], undone: Sequence[Stage]) -> None:
    """Raise `UserError` if a stage needs the result of one that is neither done nor in `todo`.

    `undone` are the unfinished stages of the run; the error names the verbs that run the missing.
    """
    here = {stage.name for stage in todo}
    missing = {stage.name: stage.verb for stage in undone if stage.name not in here}
    for stage in todo:
        if needs := [need for need in stage.needs if need in missing]:
            verbs = dict.fromkeys(f"hpc-llm {missing[need]}" for need in needs)
            commands = ", then ".join(verbs) if len(verbs) <= FEW else "hpc-llm adapt"
            raise UserError(
                stage.name,
                None,
                f"needs {', '.join(needs)} first",
                f"run {commands}, with the same settings",
            )


def unfinished(folder: RunFolder, stages: Sequence[Stage], verb: str) -> list[Stage]:
    """Return the stages of `verb` (adapt: all) that are not done with these settings."""
    records = folder.records()
    return [stage for stage in wanted(stages, verb) if not is_done(folder, records, stage)]


def is_done(folder: RunFolder, records: Records, stage: Stage) -> bool:
    """Return whether a stage has a record of these settings and inputs, and its outputs exist.

    The content of its files is not verified: see `hpc_llm.pipeline.integrity`.
    """
    record = records.get(stage.name)
    return (
        record is not None
        and record["fingerprint"] == stage.fingerprint
        and not is_stale(records, stage)
        and all((folder.path / output).exists() for output in stage.outputs)
    )


def inputs_of(records: Records, stage: Stage) -> dict[str, str]:
    """Return the fingerprints of the files of all stages on which `stage` depends, by stage.

    Stages recorded by an earlier version, without hashes, are skipped.
    """
    known = {name: records[name] for name in stage.upstream if name in records}
    return {name: content_of(one["files"]) for name, one in known.items() if "files" in one}


def is_stale(records: Records, stage: Stage) -> bool:
    """Return whether a finished stage was made from other files than those recorded now."""
    now = inputs_of(records, stage)
    then = records[stage.name].get("inputs", {}) if stage.name in records else {}
    return any(then[name] != now[name] for name in then.keys() & now.keys())
