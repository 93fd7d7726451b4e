"""Validate settings against a run folder, before anything is written, submitted or computed.

No torch here: it also runs on login nodes. DeepSpeed's own keys are validated after process group
initialisation (`hpc_llm.training.zero.check_zero`), still before the first stage.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_llm.accounting.method import own_names
from hpc_llm.accounting.model_file import context_length, read_config
from hpc_llm.accounting.tensor import check_tensor
from hpc_llm.distributed import layout_of
from hpc_llm.errors import UserError
from hpc_llm.methods import ALL_LAYERS, describe, trains
from hpc_llm.pipeline.changed import refuse_changed
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.pipeline.table import point_of
from hpc_llm.pipeline.tasks import check_questions
from hpc_llm.pipeline.todo import refuse_missing, unfinished
from hpc_llm.planning.counted import count_stages
from hpc_llm.rundir import RunFolder
from hpc_llm.settings import RunConfig
from hpc_llm.surgery.folders import check_base, linear_names
from hpc_llm.surgery.hub import check_hub_id
from hpc_llm.surgery.trust import check_model_files
from hpc_llm.training.data.batches import plan_batches
from hpc_llm.training.parallel import check_sequence_parallel

__all__ = ["check_start"]

SHORT = 16  # tokens, for a model that is built only to look at its names
READERS = ("tokenizer", "evaluate/base", "transplant")  # stages that read the base model


def check_start(
    cfg: RunConfig,
    folder: RunFolder,
    stages: Sequence[Stage],
    todo: Sequence[Stage],
    world_size: int,
) -> None:
    """Raise `UserError` if `todo` can neither start nor resume from an earlier start.

    `stages` are all stages of the run, `todo` those to run now.
    """
    if cfg.checkpoint.changed == "refuse":
        refuse_changed(folder, todo)
    refuse_missing(todo, unfinished(folder, stages, "adapt"))
    _refuse_unmerged(cfg, {stage.name for stage in todo})
    _check_tensor(cfg, {stage.name for stage in todo})
    _check_model(cfg, todo)
    points = (point_of(stage.name) for stage in todo if stage.row.module == "evaluate")
    check_questions(cfg, points)
    if any(stage.trains for stage in todo):
        _check_experts(cfg, {stage.name for stage in todo})
        config = _model_config(cfg)
        longest = context_length(config)
        check_sequence_parallel(config, cfg.parallel.sequence)
        layout = layout_of(world_size, cfg.parallel.sequence, cfg.parallel.tensor)
        for stage in todo:
            if stage.trains:
                name = point_of(stage.name)
                stretch = 1 if name == cfg.pretraining else cfg.model.stretch
                positions = None if longest is None else int(longest * stretch)
                plan_batches(cfg.for_stage(name).train, layout.data, positions)


def _check_model(cfg: RunConfig, todo: Sequence[Stage]) -> None:
    """Raise `UserError` for a base model that cannot be adapted, and for targets it does not have.

    Only if a stage reads it: others run without its folder.
    """
    if cfg.model.path is None or not any(stage.name in READERS for stage in todo):
        return
    check_hub_id(cfg.model)
    check_model_files(cfg.model.path, cfg.model)
    known = linear_names(check_base(cfg.model.path, cfg.model.revision))
    for name in cfg.adaptation if known else ():
        adapter = trains(cfg.stages[name]).adapter
        if adapter is not None and adapter.targets != ALL_LAYERS:
            own_names(adapter.targets, known, f"stages.{name}.targets")


def _check_experts(cfg: RunConfig, todo: set[str]) -> None:
    """Raise `UserError` for stacked expert weights that a model without weights does not have.

    In a process of its own, which takes seconds; only if a stage names such weights.
    """
    config = _model_config(cfg)
    names = [name for name in cfg.adaptation if f"train/{name}" in todo]
    for name in names if config else ():
        adapter = trains(cfg.stages[name]).adapter
        if adapter is not None and adapter.stacked:
            count_stages(config, {name: (cfg.tokenizer.vocab_size, cfg.stages[name])}, SHORT)


def _refuse_unmerged(cfg: RunConfig, todo: set[str]) -> None:
    """Raise `UserError` for stages that need the merged result of a method that never merges."""
    for name in cfg.adaptation:
        if describe(cfg.stages[name].method).merges != "never":
            continue
        later = [other for other in cfg.adaptation if name in cfg.lineage(other)[:-1]]
        needing = [f"train/{other}" for other in later]
        if name in cfg.lineage(cfg.adaptation[-1]):
            needing += ["correct", "evaluate/corrected"]
        if blocked := [stage for stage in needing if stage in todo]:
            raise UserError(
                f"stages.{name}.method",
                cfg.stages[name].method,
                f"never merges into a model, as needed by {', '.join(blocked)}",
                f"run only stages up to evaluate/{name} with --stages, or use a method that merges",
            )


def _check_tensor(cfg: RunConfig, todo: set[str]) -> None:
    """Raise `UserError` for training stages that tensor parallelism cannot split."""
    ranks, key = cfg.parallel.tensor, "parallel.tensor"
    training = [name for name in cfg.stages if f"train/{name}" in todo]
    if ranks == 1 or not training:
        return
    for name in training:
        if trains(cfg.stages[name]).adapter is not None:
            rule = f"does not split adapters, as of stages.{name}.method={cfg.stages[name].method}"
            raise UserError(key, ranks, rule, f"use {key}=1, or stages without adapters")
    if config := _model_config(cfg):
        check_tensor(config, ranks)


def _model_config(cfg: RunConfig) -> dict[str, Any]:
    """Return the base model's configuration; empty for a hub id, which is checked on loading."""
    found: dict[str, Any] = dict(cfg.model.architecture or {})
    if cfg.model.path is not None:
        file = Path(os.path.expanduser(cfg.model.path)) / "config.json"
        found = read_config(file) if file.is_file() else {}
    return found
