"""Stage `train/<name>`: one training stage of the recipe on the transplanted model."""

import shutil
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import save_file

from hpc_llm.rundir import publish, replaced_folder, write_json
from hpc_llm.stages.assemble import start_model
from hpc_llm.stages.context import Context
from hpc_llm.stages.training import train_stage, training_result
from hpc_llm.training.job import StageJob, TrainedStage

__all__ = ["run"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write train/<name>/: weights.safetensors by name, and adapter/ in the layout of peft."""
    stage = name.split("/")[1]
    folder = context.stage_folder(name)
    model = start_model(context, context.cfg.recipe.adaptation.index(stage))
    shards = context.stage_folder("tokenizer") / "shards" / "target"
    trained, job = train_stage(context, stage, model, shards, folder)
    result = training_result(job, trained)
    if context.ranks.is_first:
        _write(folder, trained, job)
        write_json(folder / "done.json", result)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return result


def _write(folder: Path, trained: TrainedStage, job: StageJob) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".weights.tmp"
    save_file(trained.weights, temporary)
    publish(temporary, folder / "weights.safetensors")
    if isinstance(job.trainable.model, PeftModel):
        with replaced_folder(folder / "adapter") as adapter:
            job.trainable.model.save_pretrained(
                adapter, state_dict=trained.adapters, save_embedding_layers=False
            )
