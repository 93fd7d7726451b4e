"""The DeepSpeed engine of one stage: built once, then one optimizer step after the other."""

from typing import Any

import torch

from hpc_llm.surgery.trainable import Trainable
from hpc_llm.training import process_group
from hpc_llm.training.checkpoint import Snapshot
from hpc_llm.training.job import StageJob
from hpc_llm.training.losses import CausalLoss
from hpc_llm.training.shards import Rows
from hpc_llm.training.states import gather_states, restore_states
from hpc_llm.training.zero import deepspeed_config

__all__ = ["Engine", "start_engine"]


class Engine:
    """A `deepspeed` engine with our loss normalisation and our learning rate."""

    def __init__(self, engine: Any, job: StageJob) -> None:
        """Wrap an initialised DeepSpeed engine."""
        self.engine = engine
        self.job = job
        self.device = process_group.device_of()

    def step(self, rows: list[Rows], label_tokens: int, relative_rate: float) -> torch.Tensor:
        """Make one optimizer step from this rank's micro-batches; return its summed loss (nats).

        The loss is the sum over tokens divided by the label tokens of the *whole* global batch.
        DeepSpeed averages over ranks and micro-steps, which the factor takes back.
        """
        for group in self.engine.optimizer.param_groups:
            group["lr"] = group["peak_rate"] * relative_rate
        factor = self.job.plan.world_size * self.job.plan.accumulation / max(1, label_tokens)
        total = torch.zeros((), dtype=torch.float64)
        for part in rows:
            tensors = [part.input_ids, part.position_ids, part.labels]
            loss = self.engine(*(torch.from_numpy(t).to(self.device) for t in tensors))
            self.engine.backward(loss * factor)
            self.engine.step()
            total += loss.detach().double().cpu()
        return total

    def gradient_norm(self) -> float | None:
        """Return the global gradient norm of the last step, where DeepSpeed knows it."""
        norm = self.engine.get_global_grad_norm()
        return None if norm is None else float(norm)

    def states(self) -> tuple[dict[str, torch.Tensor], float]:
        """Return what a checkpoint holds (collective)."""
        return gather_states(self.engine, self.job.trainable.parameters)


def start_engine(trainable: Trainable, job: StageJob, snapshot: Snapshot | None) -> Engine:
    """Initialise DeepSpeed for a stage, going on from `snapshot` if there is one."""
    import deepspeed

    parameters = trainable.parameters
    if snapshot:
        with torch.no_grad():
            for name, parameter in parameters.items():
                if not hasattr(parameter, "ds_id"):
                    parameter.copy_(snapshot.tensors[f"weight/{name}"])
    loss = CausalLoss(trainable.model, trainable.causal, job.zero.stage)
    loss.train()
    elements = sum(getattr(p, "ds_numel", p.numel()) for p in parameters.values())
    optimizer = torch.optim.AdamW(
        parameter_groups(trainable, job),
        betas=(job.train.beta1, job.train.beta2),
        fused=not job.zero.offload_optimizer,
    )
    with process_group.quiet():
        engine, *_ = deepspeed.initialize(
            model=loss,
            optimizer=optimizer,
            config=deepspeed_config(job.train, job.zero, job.plan, elements),
        )
        if snapshot:
            restore_states(engine, parameters, snapshot.tensors, snapshot.progress.optimizer_step)
    return Engine(engine, job)


def parameter_groups(trainable: Trainable, job: StageJob) -> list[dict[str, Any]]:
    """Return AdamW's groups: matrices decay, vectors do not, embeddings have their own rate."""
    peak = job.peak_rate
    beside_lora = job.stage.embedding_rate_ratio if trainable.adapters else 1.0
    decay = job.train.weight_decay
    groups = [
        (list(trainable.embeddings.values()), peak * beside_lora, decay),
        ([p for p in trainable.body.values() if _dimensions(p) > 1], peak, decay),
        ([p for p in trainable.body.values() if _dimensions(p) <= 1], peak, 0.0),
        (list(trainable.adapters.values()), peak, decay),
    ]
    return [
        {"params": params, "lr": rate, "peak_rate": rate, "weight_decay": weight_decay}
        for params, rate, weight_decay in groups
        if params
    ]


def _dimensions(parameter: torch.nn.Parameter) -> int:
    return len(getattr(parameter, "ds_shape", parameter.shape))
