"""The verbs that work on a run folder: `adapt` and its single stages."""

import os
import sys
from pathlib import Path

from hpc_llm.app.arguments import Arguments
from hpc_llm.distributed import Ranks, detect_ranks, say, set_up_console
from hpc_llm.errors import UserError
from hpc_llm.rundir import RunFolder
from hpc_llm.settings import RunConfig

__all__ = ["open_folder", "run_recipe"]

# OpenMP threads that wait spin for this many rounds before they sleep. At its default (300,000) a
# second busy program on the same cores makes training 28 times slower, at this one 6 times; alone
# it costs 3 % (2 threads, 2 cores, rows of 512 tokens). Read when torch is imported.
SPIN_COUNT = "10000"


def run_recipe(arguments: Arguments) -> int:
    """Run a verb on its run folder, on this rank or on `launch.processes` ranks started here."""
    from hpc_llm import config

    ranks = detect_ranks(os.environ)
    set_up_console(ranks)
    if arguments.multirun:
        from hpc_llm.app.sweep import run_sweep

        return run_sweep(arguments)
    if arguments.config:
        cfg = config.load(Path(arguments.config))
    else:
        composed = config.compose(arguments.overrides, example=arguments.verb == "adapt")
        if arguments.show_config:
            print(config.as_yaml(composed), end="")
            return 0
        cfg = config.typed(composed)
    return _run(cfg, ranks, str(arguments.verb))


def _run(cfg: RunConfig, ranks: Ranks, verb: str) -> int:
    from hpc_llm.report import print_summary
    from hpc_llm.stages import open_context, pipeline, run

    stages = pipeline(cfg)  # what is missing is told before anything is made
    folder = open_folder(cfg, ranks)
    if cfg.launch.processes > 1 and ranks.launcher == "none":
        from hpc_llm.launch import run_ranks

        words = [verb, "--config", str(folder.config)]
        return run_ranks(words, cfg.launch.processes, os.environ)
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    with open_context(cfg, stages, folder, ranks, verb) as context:
        run(context, verb)
    if ranks.is_first and verb in ("adapt", "report"):
        print_summary(folder, sys.stdout)
    return 0


def open_folder(cfg: RunConfig, ranks: Ranks) -> RunFolder:
    """Return the run folder, made if need be, with the configuration in it (rank 0 writes)."""
    from hpc_llm import config

    folder = RunFolder(Path(cfg.runs_dir).expanduser() / (cfg.run or cfg.model.label))
    if not ranks.is_first:
        return folder
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
        raise UserError(
            f"runs_dir={cfg.runs_dir}: no folder can be made at {folder.path} ({error.strerror}); "
            "give another runs_dir"
        ) from error
    if folder.config.exists():
        for line in config.differences(config.load(folder.config), cfg):
            say(f"{folder.path}: changed {line}")
    elif any(path.name != ".lock" for path in folder.path.iterdir()):
        raise UserError(
            f"{folder.path}: holds files but no config.yaml, so it is no run folder; "
            "give another run=NAME"
        )
    config.write(cfg, folder.config)
    return folder
