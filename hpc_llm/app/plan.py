"""`hpc-llm plan`: predict the cost of a run before it starts.

With -m: predict every combination of comma-separated values, one after another.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hpc_llm.app.arguments import Arguments
from hpc_llm.errors import EXIT_USER, UserError
from hpc_llm.planning import PlanJob, jobs_text, join_plans, plan_answer
from hpc_llm.rundir import RunFolder
from hpc_llm.settings import RunConfig

__all__ = ["plan_of", "plan_of_sweep", "run_plan"]


def run_plan(arguments: Arguments) -> int:
    """Print the cost of each training stage; with launch=slurm also the job scripts."""
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
        except UserError as error:  # the other combinations continue
            print(f"hpc-llm: {words}: {error}", file=sys.stderr)
            code = EXIT_USER
    print(join_plans(answers, form), end="")
    return code


def _answer(overrides: list[str], show_config: bool) -> tuple[str, str]:
    """Return a plan, or with --cfg the configuration, and its format."""
    from hpc_llm import config

    composed = config.compose(overrides, example=True)
    if show_config:
        return config.as_yaml(composed), "table"
    cfg = config.typed(composed)
    return plan_answer(cfg, _jobs(cfg, "adapt", None)), cfg.plan.format


def plan_of(cfg: RunConfig, verb: str, names: list[str] | None) -> str:
    """Return the plan of a verb and, with launch=slurm, the jobs of its unfinished stages."""
    from hpc_llm.pipeline import choose, pipeline, unfinished

    todo = unfinished(RunFolder(cfg.folder), choose(pipeline(cfg), names), verb)
    return plan_answer(cfg, _jobs(cfg, verb, [stage.name for stage in todo], whole=names is None))


def plan_of_sweep(
    trials: Mapping[str, RunConfig], arrays: Mapping[str, Sequence[tuple[Path, str]]]
) -> str:
    """Return the plan of each trial, followed by the scripts of the shared arrays.

    `arrays`: by trial, the path and the script of each array with a task of the trial.
    """
    cfg = next(iter(trials.values()))
    shared = {path: script for chain in arrays.values() for path, script in chain}
    jobs = dict(zip(shared, _asked(cfg, shared.values()), strict=False))
    of_each = {
        words: [jobs[path] for path, _ in arrays.get(words, ()) if path in jobs]
        if cfg.plan.format == "json"
        else []
        for words in trials
    }
    answers = {words: plan_answer(one, of_each[words]) for words, one in trials.items()}
    text = join_plans(answers, cfg.plan.format)
    return text if cfg.plan.format == "json" else text + jobs_text(list(jobs.values()), "array")


def _asked(cfg: RunConfig, scripts: Iterable[str]) -> list[PlanJob]:
    """Return job scripts with Slurm's message for each; none unless the format is table."""
    if cfg.plan.format == "csv" or cfg.plan.table is not None:
        return []
    from hpc_llm.launch import ask_slurm

    return [PlanJob(script=script, answer=ask_slurm(script)) for script in scripts]


def _jobs(
    cfg: RunConfig, verb: str, stages: list[str] | None, *, whole: bool = True
) -> list[PlanJob]:
    """Return the jobs that run `stages` (None: the recipe), with Slurm's message for each."""
    if cfg.launch.name != "slurm":
        return []
    from hpc_llm.launch import divide, job_script
    from hpc_llm.pipeline import stage_names

    stages = stage_names(cfg) if stages is None else stages
    config_path = RunFolder(cfg.folder).config
    parts = divide(cfg, stages, whole=whole) if stages else []
    return _asked(cfg, (job_script(cfg, verb, config_path, part) for part in parts))
