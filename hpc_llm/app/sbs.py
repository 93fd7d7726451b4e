"""`hpc-llm sbs`: answers of models side by side, judged by people.

Writes a page for each annotator to `runs/NAME/sbs/annotators/`.
"""

import os
import shlex

from hpc_llm.app.arguments import Arguments
from hpc_llm.app.run_folders import charge_time, open_folder
from hpc_llm.distributed import Ranks, detect_ranks, set_up_console
from hpc_llm.errors import UserError
from hpc_llm.rundir import RunFolder, refuse_foreign
from hpc_llm.settings import RunConfig

__all__ = ["run_sbs"]


def run_sbs(arguments: Arguments) -> int:
    """Make a study; return the exit code."""
    from hpc_llm import config

    ranks = detect_ranks(os.environ)
    set_up_console(ranks)
    _refuse_flags(arguments, ranks)
    composed = config.compose(arguments.overrides)
    if arguments.show_config:
        print(config.as_yaml(composed), end="")
        return 0
    cfg = config.typed(composed)
    if cfg.launch.name == "slurm":
        rule, fix = "not available for sbs", "srun it in an allocation with one GPU"
        raise UserError("launch", "slurm", rule, fix)
    if cfg.run is None:
        raise UserError("run", "null", "a study has a name of its own", "set run=NAME")
    _make(cfg, ranks)
    return 0


def _make(cfg: RunConfig, ranks: Ranks) -> None:
    """Generate answers and write the pages."""
    from hpc_llm.evaluation.side_by_side import read_questions
    from hpc_llm.stages.side_by_side import find_models, make_study, plan_study

    if cfg.sbs.questions is None:
        raise UserError("sbs.questions", "null", "a study needs questions", "set it to a file")
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


def _refuse_flags(arguments: Arguments, ranks: Ranks) -> None:
    """Raise `UserError` for flags that the verb does not have, and on several ranks."""
    flags = {
        "-m": arguments.multirun,
        "--stages": arguments.stages is not None,
        "--config": arguments.config is not None,
    }
    for flag, given in flags.items():
        if given:
            raise UserError(flag, None, "hpc-llm sbs does not have it", "remove it")
    if ranks.world_size > 1:
        rule = f"started on {ranks.world_size} ranks"
        raise UserError("sbs", None, rule, "run it on one: srun --ntasks=1 --gpus=1")
