"""The recipe: which stages run in which order, each skipped when its record says it is done."""

from hpc_llm.stages.context import Context
from hpc_llm.stages.pipeline import VERBS, Stage, pipeline
from hpc_llm.stages.run import open_context, run, unfinished

__all__ = ["VERBS", "Context", "Stage", "open_context", "pipeline", "run", "unfinished"]
