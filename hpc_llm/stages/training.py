"""What the stages that train have in common: a job for the loop, hooks for events and the bill."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from hpc_llm.accounting import Architecture, stage_method
from hpc_llm.stages.context import Context
from hpc_llm.stages.watch import StageFlops, Watch
from hpc_llm.surgery.trainable import make_trainable
from hpc_llm.tokenizer.encode import open_shards
from hpc_llm.training import process_group
from hpc_llm.training.batches import plan_batches, stage_steps
from hpc_llm.training.job import StageJob, TrainedStage
from hpc_llm.training.loop import train
from hpc_llm.training.shards import PackedReader, load_byte_counts
from hpc_llm.training.verify import verify_flops

__all__ = ["train_stage", "training_result"]


def train_stage(
    context: Context, name: str, model: PreTrainedModel, shards: Path, folder: Path
) -> tuple[TrainedStage, StageJob]:
    """Train `model` by the stage `train.<name>` on `shards`; checkpoints lie in `folder`."""
    cfg = context.cfg
    stage = cfg.train.stage(name)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    plan = plan_batches(cfg.train, context.ranks.world_size, positions)
    reader = PackedReader(
        open_shards(shards), load_byte_counts(shards), plan.sequence_length, cfg.seed
    )
    architecture = Architecture.from_config(model.config.to_dict())
    peak_rate = stage.peak_rate(architecture.hidden_size)
    job = StageJob(
        name=name,
        trainable=make_trainable(
            model.to(process_group.device_of()), stage, cfg.train.recompute, cfg.seed
        ),
        reader=reader,
        plan=plan,
        steps=stage_steps(stage, plan, reader.rows_per_epoch),
        peak_rate=peak_rate,
        stage=stage,
        train=cfg.train,
        zero=cfg.zero,
        schedule=cfg.schedule,
        ranks=context.ranks,
        seed=cfg.seed,
        folder=folder / "checkpoints",
        fingerprint=_checkpoint_key(context, name),
    )
    method = stage_method(stage, recompute=cfg.train.recompute)
    if cfg.accounting.verify:
        verify_flops(job.trainable.model, architecture, method, plan)
    flops = StageFlops.of(architecture, method, plan)
    with Watch(context, job, flops, _later_flops(context, job, architecture)) as watch:
        return train(job, watch.hooks()), job


def _later_flops(context: Context, job: StageJob, architecture: Architecture) -> int:
    """FLOPs carried out by the stages that train after this one, as far as can be known now."""
    train, flops = context.cfg.train, 0
    later = context.cfg.recipe.stages[context.cfg.recipe.stages.index(job.name) + 1 :]
    for name in later:
        stage = train.stage(name)
        steps = stage.steps
        if job.name != "pretrain":  # it reads another text
            steps = stage_steps(stage, job.plan, job.reader.rows_per_epoch)
        method = stage_method(stage, recompute=train.recompute)
        flops += steps * StageFlops.of(architecture, method, job.plan).hardware_per_step
    return flops


def _checkpoint_key(context: Context, name: str) -> str:
    """What a checkpoint must have been made by to be gone on from: the stage's fingerprint."""
    return context.fingerprint(name if name == "pretrain" else f"train/{name}")


def training_result(job: StageJob, trained: TrainedStage) -> dict[str, Any]:
    """Return what the record of a training stage tells."""
    done, reader = trained.progress, job.reader
    parameters = job.trainable.parameters.values()
    loss = done.loss if done.loss is not None else float("nan")
    line = f"{done.step} steps, {done.tokens:,} tokens, loss {loss:.3f}, rate {job.peak_rate:.2g}"
    return {
        **{k: v for k, v in asdict(done).items() if k not in ("step", "optimizer_step")},
        "steps": done.step,
        "bytes": round(done.tokens * reader.bytes_per_token),
        "epochs": done.step * job.plan.rows / reader.rows_per_epoch,
        "packing_efficiency": reader.packing.efficiency,
        "peak_learning_rate": job.peak_rate,
        "trainable_parameters": int(
            np.sum([getattr(p, "ds_numel", p.numel()) for p in parameters])
        ),
        "line": line,
    }
