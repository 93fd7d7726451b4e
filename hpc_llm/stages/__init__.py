"""The recipe: which stages run in which order, each skipped when its record says it is done."""

from hpc_llm.stages.checks import check_start
from hpc_llm.stages.context import Context, commit
from hpc_llm.stages.pipeline import VERBS, Stage, choose, pipeline, stage_names
from hpc_llm.stages.run import open_context, run, run_replay, unfinished

__all__ = [
    "VERBS",
    "Context",
    "Stage",
    "check_start",
    "choose",
    "commit",
    "open_context",
    "pipeline",
    "run",
    "run_replay",
    "stage_names",
    "unfinished",
]
