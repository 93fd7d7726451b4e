"""Unfinished stages of a run folder: stages without a record of the current settings."""

from collections.abc import Sequence

from hpc_llm.errors import UserError
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.rundir import RunFolder

__all__ = ["refuse_missing", "unfinished", "wanted"]

FEW = 2  # verbs that an error lists; if more are missing, it names adapt


def wanted(stages: Sequence[Stage], verb: str) -> list[Stage]:
    """Return the stages of a verb; adapt: all."""
    return [stage for stage in stages if verb in ("adapt", stage.verb)]


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
    return [stage for stage in wanted(stages, verb) if not _is_done(folder, stage)]


def _is_done(folder: RunFolder, stage: Stage) -> bool:
    record = folder.finished(stage.name)
    return (
        record is not None
        and record["fingerprint"] == stage.fingerprint
        and all((folder.path / output).exists() for output in stage.outputs)
    )
