"""The DeepSpeed engine of one stage: built once, then stepped."""

import math
from collections.abc import Callable
from typing import Any

import torch

from hpc_llm.surgery.loading import end_division
from hpc_llm.surgery.trainable import Trainable
from hpc_llm.training import process_group
from hpc_llm.training.agreement import check_same
from hpc_llm.training.checkpoints.checkpoint import Checkpoint
from hpc_llm.training.checkpoints.resume import restore
from hpc_llm.training.checkpoints.states import start_states
from hpc_llm.training.data.rows import Rows
from hpc_llm.training.groups import group_of
from hpc_llm.training.kernels.attention import attend_by_document
from hpc_llm.training.kernels.compiling import compile_layers
from hpc_llm.training.kernels.layers import keep_less
from hpc_llm.training.kernels.losses import CausalLoss
from hpc_llm.training.kernels.low_rank import join_adapters
from hpc_llm.training.kernels.products import speed_up_products
from hpc_llm.training.loss_scale import can_fall, missing_factor, read_loss_scale
from hpc_llm.training.optimizer import build_optimizer
from hpc_llm.training.spec import StageSpec
from hpc_llm.training.stragglers import ForwardClock
from hpc_llm.training.tensor_parallel import (
    end_groups,
    gradient_norm,
    mark_split,
    start_groups,
    tensor_config,
)
from hpc_llm.training.transfers import to_device
from hpc_llm.training.zero import deepspeed_config

__all__ = ["Engine", "start_engine"]


class Engine:
    """A `deepspeed` engine with our loss normalisation and our learning rate."""

    def __init__(self, engine: Any, spec: StageSpec) -> None:
        """Wrap an initialised DeepSpeed engine."""
        self.engine = engine
        self.spec = spec
        self.device = process_group.device_of()
        self.clock = ForwardClock(self.device)
        self._norm: float | None = None
        self._factor = 1.0
        self.rescaled = False
        """Whether the last update was skipped for an fp16 overflow that lowered the loss scale."""
        _make_skippable(engine.optimizer)
        if self._knows_norm:
            _spare_passes(engine, self._clip)

    def accumulate(self, rows: list[Rows], label_tokens: int, rate: float) -> torch.Tensor:
        """Compute the gradient of this rank's micro-batches; return their summed loss (nats).

        `rate` is the learning rate relative to its peak, used by `update`, which must follow.
        The loss is the sum over tokens divided by the label tokens of the *whole* global batch.
        DeepSpeed averages over its ranks and gradient accumulation steps; `share` undoes that.
        The gradient of a rank is that of its part of the batch, so their sum is the whole one.
        """
        for group in self.engine.optimizer.param_groups:
            group["lr"] = group["peak_rate"] * rate
        self._factor = missing_factor(self.engine)
        share = self.engine.dp_world_size * self.spec.plan.accumulation / max(1, label_tokens)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for number, part in enumerate(rows):
            if number:
                self.engine.step()  # between micro-batches: only counts them
            # set explicitly: during batch warm-up there are fewer micro-batches than configured
            self.engine.set_gradient_accumulation_boundary(number == len(rows) - 1)
            inputs = self._inputs(part)
            with self.clock.forward():
                loss = self.engine(*inputs)
            self.engine.backward(loss * (share * self._factor))
            total += loss.detach()  # stays on the device: no synchronisation here
        return total

    def loss_of(self, rows: Rows) -> float:
        """Return the summed loss (nats) of one micro-batch, without a gradient (collective)."""
        with torch.no_grad():
            return float(self.engine(*self._inputs(rows)))

    def _inputs(self, rows: Rows) -> list[torch.Tensor]:
        arrays = (rows.input_ids, rows.position_ids, rows.labels)
        return [to_device(array, self.device) for array in arrays]

    def update(self, *, leave_out: bool = False) -> bool:
        """Apply the accumulated gradient; return False if the update was skipped.

        It is skipped on request, and when the gradient is NaN or infinite. This uses DeepSpeed's
        own path for a step whose loss scale was too high, which does not exist without ZeRO.
        """
        optimizer = self.engine.optimizer
        if self._knows_norm:
            self._norm = gradient_norm(self.spec.trainable.parameters.values())
            leave_out = leave_out or not math.isfinite(self._norm)
        optimizer.left_out = leave_out
        scale_can_fall = can_fall(self.engine)
        self.engine.step()
        applied = not getattr(optimizer, "overflow", leave_out)
        self.rescaled = scale_can_fall and not applied
        return applied

    @property
    def _knows_norm(self) -> bool:
        """Whether the optimizer is torch's own: no ZeRO, fp32."""
        return not hasattr(self.engine.optimizer, "overflow")

    def _clip(self) -> None:
        limit = self.engine.gradient_clipping()
        if self._norm is not None and limit < self._norm < math.inf:
            parameters = self.spec.trainable.parameters.values()
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, torch.tensor(self._norm))

    def restore(self, start: Checkpoint) -> None:
        """Restore the states of a checkpoint (collective)."""
        restore(self.engine, self.spec, start)

    def __enter__(self) -> "Engine":
        """Enter the context."""
        return self

    def __exit__(self, *error: object) -> None:
        """Release DeepSpeed's memory; the model and its weights stay usable."""
        self.engine.destroy()
        end_division()
        end_groups(self.spec.layout)

    def loss_scale(self) -> dict[str, float]:
        """Return the state of the fp16 loss scale; empty in other precisions."""
        return read_loss_scale(self.engine)

    def shared_parameters(self) -> dict[str, torch.Tensor]:
        """Return the tensors that must be equal on all ranks: embeddings, LM head, adapters."""
        causal = self.spec.trainable.causal
        inputs, head = causal.get_input_embeddings(), causal.get_output_embeddings()
        ends = {"the input rows": inputs.weight, "the LM head": head.weight}
        return {**ends, **self.spec.trainable.adapters}

    def gradient_norm(self) -> float | None:
        """Return the global gradient norm of the last step; None if DeepSpeed has none."""
        norm = self.engine.get_global_grad_norm() if self._norm is None else self._norm
        return None if norm is None else float(norm) / self._factor


def start_engine(trainable: Trainable, spec: StageSpec, start: Checkpoint | None) -> Engine:
    """Initialise DeepSpeed for a stage and load the checkpoint `start` if given."""
    import deepspeed

    parameters = trainable.parameters
    part = (spec.place.sequence, spec.layout.sequence)
    mpu = start_groups(spec.layout)
    tensor_group = mpu and mpu.get_tensor_model_parallel_group()
    loss = CausalLoss(trainable.model, trainable.causal, spec.zero.stage, part, tensor_group)
    loss.config = trainable.causal.config  # where DeepSpeed looks up how to split the layers
    loss.train()
    if spec.train.compile:
        compile_layers(trainable.causal)
    else:
        group = group_of(spec.layout.sequence_groups())
        able = attend_by_document(trainable.causal, group)
        assert able or group is None  # checked by `check_sequence_parallel` and the settings
        keep_less(trainable.causal)
        if spec.train.recompute != "selective":  # changes kept products in place
            join_adapters(trainable.causal)
    speed_up_products(loss)
    elements = sum(getattr(p, "ds_numel", p.numel()) for p in parameters.values())
    optimizer = build_optimizer(trainable, spec)
    for group in optimizer.param_groups:  # in half precision without ZeRO, DeepSpeed makes an
        group["lr"] = 0.0  # update at initialisation
    config = deepspeed_config(spec.train, spec.zero, spec.plan, elements, spec.ranks)
    with process_group.quiet():
        engine, *_ = deepspeed.initialize(
            model=loss,
            optimizer=optimizer,
            config=config | tensor_config(spec.layout),
            mpu=mpu,
        )
        mark_split(trainable, spec.layout)
        start_states(engine)
        if start:
            restore(engine, spec, start)
    started = Engine(engine, spec)
    check_same(started.shared_parameters(), spec.ranks.rank)
    return started


def _spare_passes(engine: Any, clip: Callable[[], None]) -> None:
    """Disable DeepSpeed's passes over all gradients that change none of them.

    Without ZeRO it all-reduces over a single rank through a copy, computes the norm a second time,
    and multiplies by 1 when nothing is clipped.
    """
    if engine.dp_world_size == 1:
        engine.buffered_allreduce_fallback = lambda **options: None
    engine.clip_fp32_gradients = clip


def _make_skippable(optimizer: Any) -> None:
    """Make the optimizer skip a step on request, as DeepSpeed's own does after an overflow."""
    optimizer.left_out = False
    if not hasattr(optimizer, "overflow"):  # torch's, without ZeRO
        apply = optimizer.step
        optimizer.step = lambda *args, **kw: None if optimizer.left_out else apply(*args, **kw)
        return
    places = (  # stage 3; 1 and 2; without ZeRO in half precision
        (optimizer, "_overflow_check_and_loss_scale_update"),
        (optimizer, "check_overflow"),
        (getattr(optimizer, "overflow_checker", None), "check"),
    )
    owner, name = next((owner, name) for owner, name in places if hasattr(owner, name))
    check = getattr(owner, name)

    def check_or_asked(*arguments: Any, **options: Any) -> bool:
        optimizer.overflow = False  # some set it; some only return it and leave the old value
        found = check(*arguments, **options)
        optimizer.overflow = bool(found or optimizer.overflow) or optimizer.left_out
        return bool(optimizer.overflow)

    optimizer.check_grad_overflow = True  # stages 1 and 2 do not check in fp32
    setattr(owner, name, check_or_asked)
