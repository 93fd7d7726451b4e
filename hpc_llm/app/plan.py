"""`hpc-llm plan`: what a run would take, before it spends anything."""

from hpc_llm.accounting import PlanJob, plan_answer
from hpc_llm.app.arguments import Arguments
from hpc_llm.rundir import RunFolder
from hpc_llm.settings import RunConfig

__all__ = ["run_plan"]


def run_plan(arguments: Arguments) -> int:
    """Print what each training stage takes; with launch=slurm the job script too."""
    from hpc_llm import config

    composed = config.compose(arguments.overrides, example=True)
    if arguments.show_config:
        print(config.as_yaml(composed), end="")
        return 0
    cfg = config.typed(composed)
    print(plan_answer(cfg, _job(cfg)), end="")
    return 0


def _job(cfg: RunConfig) -> PlanJob | None:
    """Return the job of `adapt` and what Slurm says about it; None where none is asked for."""
    if cfg.launch.name != "slurm" or cfg.plan.format == "csv" or cfg.plan.table is not None:
        return None
    from hpc_llm.launch import ask_slurm, job_script

    script = job_script(cfg, "adapt", RunFolder(cfg.folder).config)
    return PlanJob(script=script, answer=ask_slurm(script))
