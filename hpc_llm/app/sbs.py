"""`hpc-llm sbs`: answers of models side by side, judged by people.

One call writes a page for each annotator, another one (`sbs.collect`) evaluates the answers that
they exported. Both work in `runs/NAME/sbs/`.
"""

import os
import shlex
from pathlib import Path

from hpc_llm.app.arguments import Arguments, refuse_flags, refuse_ranks
from hpc_llm.app.run_folders import charge_time, open_folder
from hpc_llm.distributed import Ranks, detect_ranks, set_up_console, visible
from hpc_llm.errors import UserError
from hpc_llm.rundir import RunFolder, refuse_foreign
from hpc_llm.settings import RunConfig

__all__ = ["run_sbs"]

QUESTIONS = 78  # of a plan without a file of questions


def run_sbs(arguments: Arguments) -> int:
    """Plan, make or evaluate a study; return the exit code."""
    from hpc_llm import config

    ranks = detect_ranks(os.environ)
    set_up_console(ranks)
    flags = ("-m", "--stages", "--config")
    refuse_flags(arguments, flags, "hpc-llm sbs does not have it", "remove it")
    refuse_ranks("sbs", ranks, "run it on one: srun --ntasks=1 --gpus=1")
    composed = config.compose(arguments.overrides)
    if arguments.show_config:
        print(config.as_yaml(composed), end="")
        return 0
    cfg = config.typed(composed)
    if cfg.sbs.only_plan or cfg.plan.only:
        _print_power(cfg)
        return 0
    if cfg.launch.name == "slurm":
        rule, fix = "not available for sbs", "srun it in an allocation with one GPU"
        raise UserError("launch", "slurm", rule, fix)
    if cfg.run is None:
        raise UserError("run", "null", "a study has a name of its own", "set run=NAME")
    if cfg.sbs.collect:
        _collect(cfg)
    else:
        _make(cfg, ranks)
    return 0


def _print_power(cfg: RunConfig) -> None:
    """Print the smallest win rate above 1/2 that a study of this size detects."""
    from hpc_llm.evaluation.side_by_side import LEVEL, POWER, read_questions, study_power

    sbs = cfg.sbs
    questions = QUESTIONS if sbs.questions is None else len(read_questions(sbs.questions))
    each = sbs.per_question or sbs.annotators
    found = study_power(questions, sbs.annotators, each, sbs.question_sd, sbs.annotator_sd)
    print(f"  {questions} questions x {each} annotators = {found.votes} votes")
    print(f"  standard error of the win rate {found.standard_error:.3f}, assuming standard")
    print(
        f"  deviations {sbs.question_sd:g} between questions, {sbs.annotator_sd:g} between people"
    )
    print(f"  smallest win rate that differs from 0.5: {found.win_rate:.3f}")
    print(f"  (two-sided level {LEVEL:g}, found with probability {POWER:g})")


def _collect(cfg: RunConfig) -> None:
    """Evaluate exported answers; write result.json and result.html."""
    from hpc_llm.corpus import expand_entries
    from hpc_llm.evaluation.side_by_side import Study, evaluate, read_votes
    from hpc_llm.report.side_by_side import result_lines, result_page
    from hpc_llm.rundir import write_json, write_text

    folder = RunFolder(cfg.folder).path / "sbs"
    refuse_foreign(folder.parent)
    study = Study.load(folder / "key.json")
    paths = [Path(path) for path in expand_entries(cfg.sbs.collect, "sbs.collect")]
    result = evaluate(study, read_votes(study, paths, partial=cfg.sbs.partial), cfg.seed)
    write_json(folder / "result.json", result)
    write_text(folder / "result.html", result_page(result, str(cfg.run)))
    for line in result_lines(result):
        print(f"  {visible(line)}")
    print(f"  page {folder / 'result.html'}")


def _make(cfg: RunConfig, ranks: Ranks) -> None:
    """Generate answers and write the pages."""
    from hpc_llm.evaluation.side_by_side import read_questions
    from hpc_llm.stages.side_by_side import find_models, make_study, plan_study

    if cfg.sbs.questions is None:
        fix = "sbs.questions=FILE, or sbs.collect=FILES to evaluate answers"
        raise UserError("sbs.questions", "null", "a study needs questions", fix)
    questions, run = read_questions(cfg.sbs.questions), RunFolder(cfg.folder)
    refuse_foreign(run.path)
    plan = plan_study(cfg, run.path / "sbs", find_models(cfg), questions)
    if not run.config.exists():  # never overwrite the configuration of a run
        run = open_folder(cfg, ranks)
    make_study(cfg, run.path / "sbs", plan)
    charge_time(cfg, ranks, run, "sbs")
    pages = shlex.quote(str(run.path / "sbs/annotators"))
    print(f"  {len(plan.cards)} pages in {pages}, one for each annotator")
    print(f"  {run.path / 'sbs/key.json'} names the models: keep it")
    print(f"  then hpc-llm sbs sbs.collect='answers/*.json' run={shlex.quote(str(cfg.run))}")
