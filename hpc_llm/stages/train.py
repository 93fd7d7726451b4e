"""Stage `train/<name>`: one training stage of the recipe on the transplanted model."""

from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import save_file
from transformers import PreTrainedModel

from hpc_llm.pipeline.context import Context
from hpc_llm.pipeline.table import point_of
from hpc_llm.rundir import (
    check_fence,
    publish,
    replaced_folder,
    system_errors,
    temporary_beside,
    write_json,
)
from hpc_llm.stages.assemble import start_model
from hpc_llm.stages.reader import TrainingText
from hpc_llm.stages.training import train_stage, training_result
from hpc_llm.tokenizer.unigram import MODEL_NAME
from hpc_llm.training.checkpoints.branches import keep_branches
from hpc_llm.training.checkpoints.folder import drop_all_but_best
from hpc_llm.training.spec import StageSpec, TrainedStage

__all__ = ["run", "starting_point"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write train/<name>/: weights.safetensors by name, and adapter/ in the layout of peft."""
    stage = point_of(name)
    folder = context.stage_folder(name)
    model, text = starting_point(context, stage)
    trained, spec, flops = train_stage(context, stage, model, text, folder)
    result = training_result(spec, flops, trained)
    if context.ranks.is_first:
        _write(folder, trained, spec)
        keep_branches(folder, spec.branch_steps)
        write_json(folder / "done.json", result)
        drop_all_but_best(folder / "checkpoints")
    return result


def starting_point(context: Context, stage: str) -> tuple[PreTrainedModel, TrainingText]:
    """Return the model from which a stage of the recipe starts, and its training text.

    A branch of STAGE@STEP gets the model from which STAGE started: the checkpoint has the rest.
    """
    cfg = context.cfg
    before = cfg.lineage(stage)[:-1]
    model = start_model(context, before[-1] if before else None, to_train=True)
    folder = context.stage_folder("tokenizer")
    shares = {folder / "shards" / text: share for text, share in cfg.text_of(stage).items()}
    return model, TrainingText(vocabulary=folder / MODEL_NAME, shares=shares)


def _write(folder: Path, trained: TrainedStage, spec: StageSpec) -> None:
    check_fence(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(folder / "weights.safetensors")
    with system_errors(folder):
        save_file(trained.weights, temporary)
    publish(temporary, folder / "weights.safetensors")
    if isinstance(spec.trainable.model, PeftModel):
        for config in spec.trainable.model.peft_config.values():
            if isinstance(config.target_modules, set):  # written in another order in each process
                config.target_modules = sorted(config.target_modules)
        with replaced_folder(folder / "adapter") as adapter:
            spec.trainable.model.save_pretrained(
                adapter, state_dict=trained.adapters, save_embedding_layers=False
            )
