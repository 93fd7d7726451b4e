"""Stage `compose`: make a model of others, by the composition that `compose=NAME` chooses."""

from typing import Any

from hpc_llm.ensembles import composition
from hpc_llm.pipeline.context import Context
from hpc_llm.rundir import replaced_folder

__all__ = ["run"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write compose/: `model/`, a model folder, and the report of the composition."""
    cfg = context.cfg
    with replaced_folder(context.stage_folder(name)) as folder:
        return composition(cfg.compose.kind).compose(folder, cfg.compose, cfg)
