"""Stage `train/<name>`: one training stage of the recipe on the transplanted model."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from hpc_llm.pipeline.cache import SharedCache
from hpc_llm.pipeline.context import Context
from hpc_llm.pipeline.table import point_of
from hpc_llm.rundir import replaced_folder, write_json
from hpc_llm.settings.stage import UNTRAINED
from hpc_llm.stages.assemble import start_model, untrained_model
from hpc_llm.stages.meter import open_meter
from hpc_llm.stages.reader import TrainingText
from hpc_llm.stages.texts import shares_of
from hpc_llm.stages.training import train_stage, training_result
from hpc_llm.surgery.merge import save_adapter
from hpc_llm.surgery.shards import StoredWeights
from hpc_llm.tokenizer.files import vocabulary_file
from hpc_llm.training.checkpoints.branches import keep_branches
from hpc_llm.training.checkpoints.folder import drop_all_but_best
from hpc_llm.training.spec import StageSpec, TrainedStage

__all__ = ["run", "starting_point"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write train/<name>/: shards of the trained weights, and adapter/ in the layout of peft."""
    stage = point_of(name)
    folder = context.stage_folder(name)
    meter = open_meter(context, stage)
    model, text = starting_point(context, stage)
    trained, spec, flops = train_stage(context, stage, model, text, folder, meter)
    result = training_result(spec, flops, trained, text)
    if context.ranks.is_first:
        _write_adapter(context, folder, trained, spec)
        keep_branches(folder, spec.branch_steps)
        write_json(folder / "done.json", result)
        drop_all_but_best(folder / "checkpoints")
    return result


def starting_point(context: Context, stage: str) -> tuple[PreTrainedModel, TrainingText]:
    """Return the model from which a stage of the recipe starts, and its training text.

    A branch of STAGE@STEP gets the model from which STAGE started: the checkpoint has the rest.
    A stage from untrained weights gets a model of the transplanted one's shape.
    """
    cfg = context.cfg
    before = cfg.lineage(stage)[:-1]
    if cfg.stages[stage].from_stage == UNTRAINED:
        model = untrained_model(context)
    else:
        model = start_model(context, before[-1] if before else None, to_train=True)
    folder = context.stage_folder("tokenizer")
    shards = folder / "shards"
    shares = {shards / text: share for text, share in shares_of(context, stage, shards).items()}
    shared = None
    if cfg.cache:
        entry = SharedCache.of(cfg.runs_dir).entry(context.stage("tokenizer"))
        shared = entry.path / "rows"
    return model, TrainingText(vocabulary=vocabulary_file(folder), shares=shares, shared=shared)


def _write_adapter(context: Context, folder: Path, trained: TrainedStage, spec: StageSpec) -> None:
    model = spec.trainable.model
    if isinstance(model, PeftModel):
        embeddings, base = _under_adapter(context, spec, trained)
        with replaced_folder(folder / "adapter") as adapter:
            save_adapter(model, adapter, trained.adapters, embeddings, base)


def _under_adapter(
    context: Context, spec: StageSpec, trained: TrainedStage
) -> tuple[dict[str, torch.Tensor], str | None]:
    """Return the trained embeddings under the adapter of a stage, and the model they belong to.

    Embeddings that earlier stages have trained are among them. If a stage has changed the body,
    there is no saved model on which the adapter was trained: ({}, None).
    """
    if spec.name not in context.cfg.adaptation:
        return {}, None
    causal = spec.trainable.causal
    ends = {
        id(weight)
        for end in (causal.get_input_embeddings(), causal.get_output_embeddings())
        for weight in end.parameters()
    }
    names = {name for name, weight in causal.named_parameters() if id(weight) in ends}
    found: dict[str, torch.Tensor] = {}
    for before in context.cfg.lineage(spec.name)[:-1]:
        folder = context.stage_folder(f"train/{before}")
        if (folder / "adapter").exists():
            return {}, None
        found |= StoredWeights(folder)
    found |= trained.weights
    if not found.keys() <= names:
        return {}, None
    return found, str(context.stage_folder("transplant").resolve())
