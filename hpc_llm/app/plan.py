"""`hpc-llm plan`: what a run would take, before it spends anything.

With -m: what every combination of comma-separated values would take, one after the other.
"""

import sys

from hpc_llm.accounting import PlanJob, join_plans, plan_answer
from hpc_llm.app.arguments import Arguments
from hpc_llm.errors import EXIT_USER, UserError
from hpc_llm.rundir import RunFolder
from hpc_llm.settings import RunConfig

__all__ = ["run_plan"]


def run_plan(arguments: Arguments) -> int:
    """Print what each training stage takes; with launch=slurm the job script too."""
    from hpc_llm import config

    if not arguments.multirun:
        print(_answer(arguments.overrides, arguments.show_config)[0], end="")
        return 0
    answers: dict[str, str] = {}
    code, form = 0, "table"
    for overrides in config.combinations(arguments.overrides):
        words = " ".join(overrides)
        try:
            answers[words], form = _answer(overrides, arguments.show_config)
        except UserError as error:  # stops no other
            print(f"hpc-llm: {words}: {error}", file=sys.stderr)
            code = EXIT_USER
    print(join_plans(answers, form), end="")
    return code


def _answer(overrides: list[str], show_config: bool) -> tuple[str, str]:
    """Return a plan, or the configuration instead of it, and its format."""
    from hpc_llm import config

    composed = config.compose(overrides, example=True)
    if show_config:
        return config.as_yaml(composed), "table"
    cfg = config.typed(composed)
    return plan_answer(cfg, _job(cfg)), cfg.plan.format


def _job(cfg: RunConfig) -> PlanJob | None:
    """Return the job of `adapt` and what Slurm says about it; None where none is asked for."""
    if cfg.launch.name != "slurm" or cfg.plan.format == "csv" or cfg.plan.table is not None:
        return None
    from hpc_llm.launch import ask_slurm, job_script

    script = job_script(cfg, "adapt", RunFolder(cfg.folder).config)
    return PlanJob(script=script, answer=ask_slurm(script))
