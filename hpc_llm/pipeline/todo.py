"""Unfinished stages of a run folder: stages without a record of the current settings."""

from collections.abc import Sequence

from hpc_llm.errors import UserError
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.rundir import RunFolder

__all__ = ["refuse_missing", "unfinished", "wanted"]


def wanted(stages: Sequence[Stage], verb: str) -> list[Stage]:
    """Return the stages of a verb; adapt: all."""
    return [stage for stage in stages if verb in ("adapt", stage.verb)]


def refuse_missing(todo: Sequence[Stage], undone: set[str]) -> None:
    """Raise `UserError` if a stage needs the result of one that is neither done nor in `todo`."""
    missing = undone - {stage.name for stage in todo}
    for stage in todo:
        if needs := [need for need in stage.needs if need in missing]:
            raise UserError(
                stage.name,
                None,
                f"needs {', '.join(needs)} first",
                "run hpc-llm adapt, or the verbs of those stages, with the same settings",
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
