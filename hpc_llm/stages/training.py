"""What the stages that train have in common: a job for the loop, hooks for events and the bill."""

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from hpc_llm.accounting import Architecture, Method, pf_days, stage_method, step_flops
from hpc_llm.distributed import say
from hpc_llm.stages.bill import add_row, device_hours, gpu_hours, money
from hpc_llm.stages.context import Context
from hpc_llm.surgery.trainable import make_trainable
from hpc_llm.tokenizer.encode import open_shards
from hpc_llm.tracking import progress as progress_bar
from hpc_llm.training import process_group
from hpc_llm.training.batches import BatchPlan, plan_batches, stage_steps
from hpc_llm.training.checkpoint import Progress
from hpc_llm.training.job import Hooks, StageJob, TrainedStage
from hpc_llm.training.loop import train
from hpc_llm.training.shards import PackedReader, load_byte_counts

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
    flops = _flops(architecture, method, plan)
    with ExitStack() as stack:
        return train(job, _hooks(context, job, flops, stack)), job


def _checkpoint_key(context: Context, name: str) -> str:
    """What a checkpoint must have been made by to be gone on from: the stage's fingerprint."""
    return context.fingerprint(name if name == "pretrain" else f"train/{name}")


@dataclass(frozen=True)
class _Flops:
    """What a step costs: model FLOPs are a * tokens + b * sum(length^2), exact and causal."""

    per_token: Fraction
    per_square: Fraction
    hardware_per_step: int
    """As carried out: dense attention over whole rows, padding and recomputation included."""

    def model(self, tokens: int, squares: int) -> int:
        """Model FLOPs of `tokens` in documents whose squared lengths sum to `squares`."""
        return int(self.per_token * tokens + self.per_square * squares)


def _flops(architecture: Architecture, method: Method, plan: BatchPlan) -> _Flops:
    """Return the costs of a step; two steps with known document lengths give a and b."""
    length = plan.sequence_length

    def cost(lengths: list[int]) -> int:
        return step_flops(architecture, method, 1, length, "causal", lengths).model

    apart, whole = cost([1] * length), cost([length])
    square = Fraction(whole - apart, length * length - length)
    hardware = step_flops(architecture, method, plan.rows, length, "dense").total
    return _Flops(Fraction(apart, length) - square, square, hardware)


def _hooks(context: Context, job: StageJob, flops: _Flops, stack: ExitStack) -> Hooks:
    """Connect the loop with the ledger, the events and the console."""
    bars: list[Any] = []
    last = [Progress()]

    def log(done: Progress, metrics: dict[str, float]) -> None:
        before, last[0] = last[0], done
        steps = done.step - before.step
        add_row(
            context,
            job.name,
            step=done.step,
            tokens=done.tokens - before.tokens,
            padded_tokens=steps * job.plan.tokens - (done.tokens - before.tokens),
            squared_lengths=done.squared_lengths - before.squared_lengths,
            seconds=done.seconds - before.seconds,
            flops=done.flops - before.flops,
            hardware_flops=steps * flops.hardware_per_step,
        )
        axes = _axes(context, job, done)
        context.events.append("train", stage=job.name, axes=axes, metrics=metrics)
        context.view.update()
        if not bars:
            bars.append(stack.enter_context(progress_bar(job.name, job.steps, start=before.step)))
        rate = metrics["perf/tokens_per_second"]
        bars[0].update(done.step, {"loss": metrics["train/loss"], "tokens/s": rate})

    def resumed(done: Progress) -> None:
        add_row(context, job.name, step=done.step, reason="resume")
        context.events.resume(job.name, done.step)
        say(f"{job.name}: going on from step {done.step} of {job.steps}")
        last[0] = done

    return Hooks(log=log, resumed=resumed, step_flops=flops.model, stop_reason=context.stop_reason)


def _axes(context: Context, job: StageJob, done: Progress) -> dict[str, Any]:
    hours = device_hours(context, done.seconds)
    return {
        "step": done.step,
        "tokens": done.tokens,
        "bytes": round(done.tokens * job.reader.bytes_per_token),
        "flops": done.flops,
        "pf_days": pf_days(done.flops),
        "gpu_hours": gpu_hours(context, hours),
        "wall_seconds": done.seconds,
        "money": money(context, hours),
    }


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
