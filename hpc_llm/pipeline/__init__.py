"""The machinery of a run: stage table, fingerprints, runner, lock, crash loop and cost account."""

from hpc_llm.pipeline.checks import check_start
from hpc_llm.pipeline.context import Context, commit
from hpc_llm.pipeline.fingerprints import Stage, choose, pipeline
from hpc_llm.pipeline.runner import open_context, run, run_rerun, unfinished
from hpc_llm.pipeline.table import stage_names

__all__ = [
    "Context",
    "Stage",
    "check_start",
    "choose",
    "commit",
    "open_context",
    "pipeline",
    "run",
    "run_rerun",
    "stage_names",
    "unfinished",
]
