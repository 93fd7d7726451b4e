"""The machinery of a run: stage table, fingerprints, runner, lock, crash loop and cost account."""

from hpc_llm.pipeline.checks import check_start
from hpc_llm.pipeline.context import Context, commit
from hpc_llm.pipeline.runner import open_context, run, run_replay, unfinished
from hpc_llm.pipeline.table import Stage, choose, pipeline, stage_names

__all__ = [
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
