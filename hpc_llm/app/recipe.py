"""The verbs that work on a run folder: `adapt` and its single stages, locally or as a job."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile

from hpc_llm.app.arguments import Arguments
from hpc_llm.app.heap import join_freed_blocks
from hpc_llm.app.run_folders import is_to_be_submitted, open_folder
from hpc_llm.distributed import Ranks, detect_ranks, join_network, set_up_console
from hpc_llm.errors import EXIT_FAILED, UserError
from hpc_llm.rundir import RunFolder, conf_files
from hpc_llm.settings import RunConfig

__all__ = ["run_recipe"]

# Waiting OpenMP threads spin for this many rounds before they sleep. With the default (300,000) a
# second busy program on the same cores makes training 28 times slower, with this value 6 times; on
# idle cores it costs 3 % (2 threads, 2 cores, sequences of 512 tokens). Read at import of torch.
SPIN_COUNT = "10000"
COMPOSING = ("compose", "corpus", "evaluate")  # verbs with a stage of a composition
MEASURED = "evaluate/tokenizer"  # the stage whose table the verb tokenizer prints


def run_recipe(arguments: Arguments) -> int:
    """Run a verb on its run folder: on this rank, on ranks started here, or as a Slurm job."""
    from hpc_llm import config

    ranks = detect_ranks(os.environ)
    set_up_console(ranks)
    if arguments.multirun:
        from hpc_llm.app.sweep import run_sweep

        return run_sweep(arguments, ranks)
    if arguments.config is not None:
        cfg = config.load(Path(arguments.config))
    else:
        composed = config.compose(arguments.overrides, example=arguments.verb == "adapt")
        if arguments.show_config:
            print(config.as_yaml(composed), end="")
            return 0
        cfg = config.typed(composed)
        if arguments.verb in ("adapt", "train") and cfg.rerun.step is None:
            config.refuse_laptop_defaults(arguments.overrides, cfg, os.environ)
    _check_verb(cfg, str(arguments.verb))
    ranks = join_network(ranks, cfg.cluster.address_suffix, cfg.cluster.environment, os.environ)
    if arguments.verb == "train" and cfg.rerun.step is not None:
        return _rerun(cfg, ranks)
    if cfg.plan.only:
        from hpc_llm.app.plan import print_plan

        return print_plan(cfg, str(arguments.verb), arguments.stages)
    if is_to_be_submitted(cfg, ranks, from_file=arguments.config is not None):
        from hpc_llm.app.submit import submit_verb

        return submit_verb(cfg, ranks, str(arguments.verb), arguments.stages)
    return _run(cfg, ranks, str(arguments.verb), arguments.stages)


def _check_verb(cfg: RunConfig, verb: str) -> None:
    """Raise `UserError` for a verb without stages: those of a composition are not of a recipe."""
    if cfg.compose is None and verb == "compose":
        names = ", ".join(f"compose={name}" for name in conf_files("compose"))
        raise UserError(
            "compose", "null", "nothing is chosen to be composed", f"add one of {names}"
        )
    if cfg.compose is not None and verb not in COMPOSING:
        rule = f"hpc-llm {verb} runs a recipe"
        raise UserError("compose", cfg.compose.kind, rule, f"use hpc-llm {' or '.join(COMPOSING)}")


def _run(cfg: RunConfig, ranks: Ranks, verb: str, names: list[str] | None) -> int:
    from hpc_llm.pipeline import check_start, choose, open_context, pipeline, run, unfinished
    from hpc_llm.report import print_summary, print_tokenizers

    stages = pipeline(cfg)  # fails on missing input before anything is written
    chosen = choose(stages, names)
    started = ranks.launcher != "none"
    world_size = ranks.world_size if started else cfg.launch.processes
    todo = unfinished(RunFolder(cfg.folder), chosen, verb)
    check_start(cfg, RunFolder(cfg.folder), stages, todo, world_size)
    if any(stage.trains for stage in todo):
        join_freed_blocks()
    folder = open_folder(cfg, ranks)
    if world_size > 1 and not started:
        from hpc_llm.launch import run_ranks

        words = [verb, "--config", str(folder.config)]
        words += ["--stages", ",".join(names)] if names else []
        return run_ranks(words, world_size, os.environ)
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    with open_context(cfg, stages, folder, ranks, verb, chosen) as context:
        run(context, verb)
    if ranks.is_first and verb in ("adapt", "report") and "report" in (names or ["report"]):
        print_summary(folder, sys.stdout)
    if ranks.is_first and verb == "tokenizer" and any(s.name == MEASURED for s in chosen):
        print_tokenizers(folder, sys.stdout)
    return 0


def _rerun(cfg: RunConfig, ranks: Ranks) -> int:
    """Rerun a step of a run with the run's own settings, without changing its results."""
    from hpc_llm import config
    from hpc_llm.pipeline import open_context, pipeline, run_rerun

    folder = RunFolder(cfg.folder)
    if not folder.config.is_file():
        raise UserError(
            str(folder.path), None, "is not a run folder", "set run=NAME and runs_dir=DIR of a run"
        )
    own = config.load(folder.config)
    cfg = replace(own, run=cfg.run, runs_dir=cfg.runs_dir, launch=cfg.launch, rerun=cfg.rerun)
    if cfg.launch.processes > 1 and ranks.launcher == "none":
        from hpc_llm.launch import run_ranks

        with NamedTemporaryFile(suffix=".yaml") as file:
            config.write(cfg, Path(file.name))
            return run_ranks(["train", "--config", file.name], cfg.launch.processes, os.environ)
    stages = pipeline(cfg)
    with open_context(cfg, stages, folder, ranks, "train", stages) as context:
        return 0 if run_rerun(context) else EXIT_FAILED
