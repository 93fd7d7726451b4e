"""Shared code of the training stages: inputs of the loop, hooks for events and costs."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from hpc_llm.accounting import (
    PF_DAY,
    Architecture,
    Method,
    StageFlops,
    context_length,
    stage_method,
)
from hpc_llm.accounting.tensor import check_tensor
from hpc_llm.distributed import say
from hpc_llm.errors import UserError
from hpc_llm.methods import trains
from hpc_llm.pipeline.context import Context
from hpc_llm.rundir import readable
from hpc_llm.settings import RunConfig, StageSettings, ZeroSettings
from hpc_llm.stages.reader import TrainingText, open_reader
from hpc_llm.stages.watch import Watch
from hpc_llm.surgery.loading import full_shape
from hpc_llm.surgery.trainable import Trainable, make_trainable, not_adapted
from hpc_llm.training import process_group
from hpc_llm.training.checkpoints.branches import branch_path
from hpc_llm.training.checkpoints.resume import read_branch
from hpc_llm.training.counting import known_costs
from hpc_llm.training.data.batches import BatchPlan, plan_batches, stage_steps
from hpc_llm.training.data.mixture import Reader
from hpc_llm.training.loop import train
from hpc_llm.training.meter import Meter
from hpc_llm.training.parallel import check_sequence_parallel
from hpc_llm.training.probe import keeps_apart
from hpc_llm.training.schedules import StageLength
from hpc_llm.training.spec import Branch, StageSpec, TrainedStage

__all__ = ["build_spec", "formula_of", "needed_division", "train_stage", "training_result"]

INTERNAL = ("step", "recent", "window")  # fields of Progress that are not recorded


def build_spec(
    context: Context, name: str, model: PreTrainedModel, text: TrainingText, folder: Path
) -> tuple[StageSpec, StageFlops]:
    """Build the inputs of the stage `train/<name>`: `model` on `text`, checkpoints in `folder`.

    Returns them with the costs of its steps. `model` gets the stage's adapters and flags.
    """
    cfg = context.cfg.for_stage(name)
    stage = cfg.stages[name]
    check_tensor(model.config.to_dict(), context.layout.tensor)
    plan = plan_batches(cfg.train, context.layout.data, context_length(model.config.to_dict()))
    check_sequence_parallel(model.config.to_dict(), cfg.parallel.sequence)
    model = model.to(process_group.device_of())
    cfg = _with_batching(cfg, name, model, plan)
    embeddings = full_shape(model.get_input_embeddings().weight)[0]
    reader = open_reader(cfg, text, plan, embeddings, context.ranks)
    _check_branches(cfg, name, stage_steps(stage, plan, reader.rows_per_epoch))
    branch = _branch(context, name)
    if branch is not None:
        plan = _continued(name, plan, reader, branch)
    again = cfg.train.recompute
    rows = _new_rows(context, name)
    trainable = make_trainable(
        model, stage, again == "full", cfg.seed, rows, selective=again == "selective"
    )
    flops = _costs(cfg, name, trainable, plan)
    length = _stage_length(stage, stage_steps(stage, plan, reader.rows_per_epoch))
    spec = StageSpec(
        name=name,
        trainable=trainable,
        reader=reader,
        plan=plan,
        steps=_expected_steps(length, plan, reader, flops),
        length=length,
        peak_rate=stage.peak_rate(model.config.get_text_config().hidden_size),
        stage=stage,
        train=cfg.train,
        zero=needed_division(cfg, context.ranks.world_size),
        schedule=cfg.schedule,
        checkpoint=cfg.checkpoint,
        guards=cfg.guards,
        ranks=context.ranks,
        layout=context.layout,
        seed=cfg.seed,
        folder=folder / "checkpoints",
        result=folder,
        fingerprint=context.stage(f"train/{name}").fingerprint,
        settings=context.stage(f"train/{name}").settings,
        branch=branch,
        branch_steps=context.cfg.branch_steps(name),
    )
    return spec, flops


def _with_batching(cfg: RunConfig, name: str, model: PreTrainedModel, plan: BatchPlan) -> RunConfig:
    """Return `cfg` with grouped batches if packed documents of `model` would see each other."""
    if cfg.train.batching == "grouped" or keeps_apart(model, plan.micro_rows):
        return cfg
    try:
        train = replace(cfg.train, batching="grouped")
    except UserError as error:
        rule = f"packed documents of {model.config.model_type} see each other, and {error.rule}"
        raise UserError(error.key, error.value, rule, error.fix) from error
    say(
        f"{name}: packed documents of {model.config.model_type} would see each other; training "
        "with train.batching=grouped"
    )
    return replace(cfg, train=train)


def _costs(cfg: RunConfig, name: str, trainable: Trainable, plan: BatchPlan) -> StageFlops:
    """Return the costs of the steps of a stage, verified on the model or counted on it."""
    adapter = trains(cfg.stages[name]).adapter
    counted = adapter is not None and adapter.stacked
    formula = None if counted else formula_of(trainable.causal)
    return known_costs(
        trainable.model,
        formula,
        _method(cfg, name, any_names=formula is None),
        plan,
        verify=cfg.accounting.verify,
        warn=lambda text: say(f"{name}: {text}"),
    )


def formula_of(model: PreTrainedModel) -> Architecture | None:
    """Return the sizes for the closed form of the FLOPs; None for a model without one."""
    try:
        found = Architecture.of(model)
    except UserError:
        return None
    return found if found.kind == "decoder" else None


def _check_branches(cfg: RunConfig, name: str, steps: int) -> None:
    """Raise `UserError` if a stage branches from a step after the last one of `name`."""
    for other, stage in cfg.stages.items():
        if stage.branch is not None and stage.branch[0] == name and stage.branch[1] > steps:
            raise UserError(
                f"stages.{other}.from",
                stage.from_stage,
                f"{name} ends after {steps} steps (stages.{name}.max_epochs="
                f"{cfg.stages[name].max_epochs:g})",
                f"use {name}@STEP up to {steps}, or a larger stages.{name}.max_epochs",
            )


def _branch(context: Context, name: str) -> Branch | None:
    """Return the checkpoint from which a stage branches; None if it does not branch."""
    found = context.cfg.stages[name].branch
    if found is None:
        return None
    stage, step = found
    return Branch(
        stage=stage,
        step=step,
        path=branch_path(context.stage_folder(f"train/{stage}"), step),
        fingerprint=context.stage(f"train/{stage}").fingerprint,
    )


def _continued(name: str, plan: BatchPlan, reader: Reader, branch: Branch) -> BatchPlan:
    """Return the plan of a branch: it continues reading the text where the branch starts.

    A different text, or the same text in sequences of another length, is read from the beginning.
    """
    state = read_branch(name, branch).state
    text = (reader.fingerprint, reader.rows_per_epoch)
    before = state.progress.batch + state.data.get("batches_before", 0)
    rows = state.data["next_row"]
    if text != (state.data["fingerprint"], state.data["rows_per_epoch"]):
        rows = 0
    return replace(plan, rows_before=rows, batches_before=before)


def train_stage(
    context: Context,
    name: str,
    model: PreTrainedModel,
    text: TrainingText,
    folder: Path,
    meter: Meter | None = None,
) -> tuple[TrainedStage, StageSpec, StageFlops]:
    """Train `model` in the stage `train/<name>` on `text`, with checkpoints in `folder`."""
    spec, flops = build_spec(context, name, model, text, folder)
    spec = replace(spec, meter=meter)
    with Watch(context, spec, flops, _later_flops(context, spec, flops)) as watch:
        return train(spec, watch.hooks()), spec, flops


def needed_division(cfg: RunConfig, world_size: int) -> ZeroSettings:
    """Return the effective `cfg.zero`: stage 0 for a single rank, which has nothing to partition.

    In fp32 on one rank, DeepSpeed's stages 1 and 2 would only store weights and gradients twice.
    """
    divides = world_size > 1 or cfg.train.precision != "fp32" or cfg.zero.stage == 3
    wanted = cfg.zero.offload_optimizer or cfg.zero.extra or cfg.checkpoint.layout == "sharded"
    return cfg.zero if divides or wanted else replace(cfg.zero, stage=0)


def _later_flops(context: Context, spec: StageSpec, flops: StageFlops) -> int:
    """Return the hardware FLOPs of later training stages, as far as known.

    Without a closed form a token of a later stage is taken to cost what one of this stage costs.
    """
    total, names = 0, list(context.cfg.stages)
    formula = formula_of(spec.trainable.causal)
    for name in names[names.index(spec.name) + 1 :]:
        cfg = context.cfg.for_stage(name)
        stage, reader = cfg.stages[name], spec.reader
        plan = plan_batches(cfg.train, context.layout.data, None)
        steps = stage.steps
        if context.cfg.text_of(name).settings == context.cfg.text_of(spec.name).settings:
            steps = stage_steps(stage, plan, reader.rows_per_epoch)
        if formula is not None:
            flops = StageFlops.of(formula, _method(cfg, name), plan.sequence_length)
        steps = _expected_steps(_stage_length(stage, steps), plan, reader, flops)
        width = plan.sequence_length
        total += steps * flops.hardware(plan.tokens, plan.tokens * width)
    return total


def _new_rows(context: Context, name: str) -> list[int]:
    """Return the ids of tokens missing in the base model if only these are trained, else []."""
    stage = context.cfg.stages[name]
    if not trains(stage).only_new_rows:
        return []
    path = context.stage_folder("transplant") / "new_rows.npy"
    with readable(path):
        rows: list[int] = np.load(path).tolist()
    if not rows:
        raise UserError(
            f"stages.{name}.method",
            stage.method,
            "the base model has all tokens of the vocabulary",
            f"remove the stage: ~stages.{name}",
        )
    return rows


def _method(cfg: RunConfig, name: str, *, any_names: bool = False) -> Method:
    """Return the trained parameters of a stage."""
    stage, key = cfg.stages[name], f"stages.{name}"
    return stage_method(stage, key=key, any_names=any_names).recomputing(cfg.train.recompute)


def _stage_length(stage: StageSettings, steps: int) -> StageLength:
    flops = None if stage.pf_days is None else stage.pf_days * PF_DAY
    return StageLength(steps=steps, tokens=stage.tokens, flops=flops)


def _expected_steps(length: StageLength, plan: BatchPlan, reader: Reader, flops: StageFlops) -> int:
    """Return the number of steps of a stage, from the mean step of an epoch."""
    tokens = round(plan.rows * reader.tokens_per_row)
    squares = round(plan.rows * reader.squares_per_row)
    return length.expected_steps(tokens, flops.model(tokens, squares))


def training_result(
    spec: StageSpec, flops: StageFlops, trained: TrainedStage, text: TrainingText
) -> dict[str, Any]:
    """Return the result of a training stage on `text` for its record."""
    done, reader = trained.progress, spec.reader
    first, end = spec.plan.rows_before, spec.plan.first_row(done.batch)
    loss = done.loss if done.loss is not None else float("nan")
    line = f"{done.step} steps, {done.tokens:,} tokens, loss {loss:.3f}, lr {spec.peak_rate:.2g}"
    without = not_adapted(spec.trainable) if spec.trainable.adapters else []
    if without:
        line += f"; experts without adapters: {', '.join(without)}"
    if trained.ended is not None:
        line += f"; {trained.ended}"
    return {
        **{k: v for k, v in asdict(done).items() if k not in INTERNAL},
        "steps": done.step,
        "bytes": round(done.tokens * reader.bytes_per_token),
        "epochs": (end - first) / reader.rows_per_epoch,
        "texts": text.portions(reader, first, end),
        "packing_efficiency": done.tokens / done.positions,
        "batching": spec.train.batching,
        "flops_source": flops.source,
        "peak_learning_rate": spec.peak_rate,
        "trainable_parameters": spec.trainable.count,
        "ended_early": trained.ended,
        "without_adapters": without,
        "line": line,
    }
