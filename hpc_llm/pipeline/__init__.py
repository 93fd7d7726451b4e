"""Pipeline of a run: stage table, fingerprints, runner, lock, crash loop, cost account."""

from hpc_llm.pipeline.checks import check_start
from hpc_llm.pipeline.context import Context, commit
from hpc_llm.pipeline.fingerprints import Stage, choose, pipeline
from hpc_llm.pipeline.open import open_context
from hpc_llm.pipeline.runner import run, run_rerun
from hpc_llm.pipeline.table import stage_names
from hpc_llm.pipeline.todo import unfinished, wanted

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
    "wanted",
]
