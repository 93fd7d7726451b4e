"""`hpc-llm plan`: predict the cost of a run before it starts.

With -m: predict every combination of comma-separated values, one after another. The exit code is 2
if a run could not train as it is configured.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hpc_llm.app.arguments import Arguments
from hpc_llm.errors import EXIT_USER, UserError
from hpc_llm.planning import PlanAnswer, PlanJob, jobs_text, join_plans, plan_answer
from hpc_llm.rundir import RunFolder
from hpc_llm.settings import RunConfig
from hpc_llm.vocabulary.modes import adapted_rows

__all__ = ["print_plan", "print_plan_of_sweep", "run_plan"]


def run_plan(arguments: Arguments) -> int:
    """Print the cost of each training stage; with launch=slurm also the job scripts."""
    from hpc_llm import config

    if not arguments.multirun:
        answer, _ = _answer(arguments.overrides, arguments.show_config)
        print(answer.text, end="")
        return _code([answer])
    answers: dict[str, PlanAnswer] = {}
    code, form = 0, "table"
    for overrides in config.combinations(arguments.overrides):
        words = " ".join(overrides)
        try:
            answers[words], form = _answer(overrides, arguments.show_config)
        except UserError as error:  # the other combinations continue
            print(f"hpc-llm: {words}: {error}", file=sys.stderr)
            code = EXIT_USER
    print(join_plans(_texts(answers), form), end="")
    return code or _code(answers.values())


def _code(answers: Iterable[PlanAnswer]) -> int:
    return 0 if all(answer.can_run for answer in answers) else EXIT_USER


def _texts(answers: Mapping[str, PlanAnswer]) -> dict[str, str]:
    return {words: answer.text for words, answer in answers.items()}


def _answer(overrides: list[str], show_config: bool) -> tuple[PlanAnswer, str]:
    """Return a plan, or with --cfg the configuration, and its format."""
    from hpc_llm import config

    composed = config.compose(overrides, example=True)
    if show_config:
        return PlanAnswer(text=config.as_yaml(composed), can_run=True), "table"
    cfg = config.typed(composed)
    verb = "adapt" if cfg.compose is None else "compose"
    return _plan(cfg, _jobs(cfg, verb, None)), cfg.plan.format


def _plan(cfg: RunConfig, jobs: Sequence[PlanJob]) -> PlanAnswer:
    """Return the plan of a recipe, or of a composition, which trains nothing."""
    if cfg.compose is None:
        return plan_answer(cfg, adapted_rows, jobs)
    from hpc_llm.ensembles import composition
    from hpc_llm.planning.composition import composition_text

    composition(cfg.compose.kind).check(cfg.compose, cfg)
    return PlanAnswer(text=composition_text(cfg) + jobs_text(jobs), can_run=True)


def print_plan(cfg: RunConfig, verb: str, names: list[str] | None) -> int:
    """Print the plan of a verb and, with launch=slurm, the jobs of its unfinished stages.

    Returns the exit code.
    """
    from hpc_llm.pipeline import choose, pipeline, unfinished

    todo = unfinished(RunFolder(cfg.folder), choose(pipeline(cfg), names), verb)
    jobs = _jobs(cfg, verb, [stage.name for stage in todo], whole=names is None)
    answer = _plan(cfg, jobs)
    print(answer.text, end="")
    return _code([answer])


def print_plan_of_sweep(
    trials: Mapping[str, RunConfig], arrays: Mapping[str, Sequence[tuple[Path, str]]]
) -> int:
    """Print the plan of each trial, followed by the scripts of the shared arrays.

    Returns the exit code. `arrays`: by trial, the path and the script of each array with a task of
    the trial.
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
    answers = {words: _plan(one, of_each[words]) for words, one in trials.items()}
    print(join_plans(_texts(answers), cfg.plan.format), end="")
    if cfg.plan.format != "json":
        print(jobs_text(list(jobs.values()), "array"), end="")
    return _code(answers.values())


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
