"""A training stage on the machine of a configuration: split of a step, memory, time and money."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpc_llm.accounting.architecture import Architecture, ParameterCount, parameter_count
from hpc_llm.accounting.flops import flops_per_token
from hpc_llm.accounting.hardware import Machine
from hpc_llm.accounting.memory import MemoryPlan, TrainingSetup, memory_plan
from hpc_llm.accounting.method import Method, optimized_parameters, trainable_parameters
from hpc_llm.accounting.projection import Projection, hardware_flops, project_flops
from hpc_llm.accounting.traffic import (
    NodeTraffic,
    network_seconds,
    network_seconds_of,
    node_traffic,
)
from hpc_llm.distributed import layout_of
from hpc_llm.planning.counted import CountedStage
from hpc_llm.settings import RunConfig

__all__ = [
    "Work",
    "overlaps",
    "relative_cost",
    "run_machine",
    "run_memory",
    "run_method",
    "run_projection",
    "run_setup",
    "run_traffic",
]


@dataclass(frozen=True, kw_only=True)
class Work:
    """One training stage: model, method (without the choice of recomputation) and tokens."""

    stage: str
    """Name of the stage."""
    arch: Architecture | None
    """Sizes of the model; None: its family has no closed form, see `counted`."""
    method: Method
    """Trainable parameters; see `run_method` for recomputation."""
    tokens: int
    """Training tokens."""
    counted: CountedStage | None = None
    """Costs counted on the model, where there is no `arch`."""

    @property
    def counts(self) -> CountedStage:
        """The costs counted on the model."""
        assert self.counted is not None
        return self.counted

    @property
    def parameters(self) -> ParameterCount:
        """Parameters of the model."""
        return self.counts.parameters if self.arch is None else parameter_count(self.arch)

    @property
    def trainable(self) -> int:
        """Trainable parameters."""
        if self.arch is None:
            return self.counts.trainable
        return trainable_parameters(self.arch, self.method)

    def flops_per_token(self, length: int) -> float:
        """Return model FLOPs of a token in sequences of `length` tokens."""
        if self.arch is None:
            return self.counts.plain.model(length, length**2) / length
        return flops_per_token(self.arch, self.method, length)

    def share_of_full(self, length: int) -> float:
        """Return `flops_per_token` relative to full training."""
        if self.arch is None:
            return self.flops_per_token(length) / (
                self.counts.full.model(length, length**2) / length
            )
        full = flops_per_token(self.arch, Method.full(), length)
        return self.flops_per_token(length) / full


def run_setup(cfg: RunConfig) -> tuple[TrainingSetup, int]:
    """Return how the trainer splits a step of `cfg`, and its gradient accumulation steps.

    Raises `UserError` for a micro-batch below one sequence, as training does.
    """
    train, parallel = cfg.train, cfg.parallel
    shares = layout_of(cfg.planned_ranks, parallel.sequence, parallel.tensor).data
    rows = max(1, train.batch_tokens // train.sequence_length // shares)
    micro = train.micro_rows(rows)
    setup = TrainingSetup(
        precision=train.precision,
        sequence_length=train.sequence_length,
        micro_batch_size=micro,
        zero_stage=cfg.zero.stage,
        data_parallel=cfg.planned_ranks // parallel.tensor,
        sequence_parallel=parallel.sequence,
        tensor_parallel=parallel.tensor,
        offload_optimizer=cfg.zero.offload_optimizer,
        offload_parameters=cfg.zero.offload_parameters,
        bucket_elements=cfg.zero.bucket_elements,
        live_elements=cfg.zero.live_elements,
        node_ranks=cfg.planned_ranks // cfg.cluster.nodes if cfg.zero.node_partition else None,
    )
    return setup, rows // micro


def run_method(cfg: RunConfig, work: Work) -> Method:
    """Return the method of `work`, with recomputation as in `cfg`."""
    return work.method.recomputing(cfg.train.recompute)


def run_machine(cfg: RunConfig) -> Machine:
    """Return the devices of `cfg`."""
    return Machine(hardware=cfg.hardware, cluster=cfg.cluster, precision=cfg.train.precision)


def run_memory(cfg: RunConfig, work: Work) -> MemoryPlan | None:
    """Return the peak memory of one device; None without a closed form."""
    if work.arch is None:
        return None
    setup, _ = run_setup(cfg.for_stage(work.stage))
    return memory_plan(work.arch, run_method(cfg, work), setup)


def _sizes(cfg: RunConfig, work: Work) -> tuple[int, int]:
    """Return the parameters of the model, and those whose gradients are reduced."""
    if work.arch is None:
        return work.parameters.total, work.trainable
    return work.parameters.total, optimized_parameters(work.arch, run_method(cfg, work))


def run_traffic(cfg: RunConfig, work: Work) -> NodeTraffic:
    """Return the bytes that a node sends in a step of `work`."""
    cfg = cfg.for_stage(work.stage)
    setup, micro_steps = run_setup(cfg)
    return node_traffic(*_sizes(cfg, work), setup, cfg.cluster.nodes, micro_steps)


def _network_hours(cfg: RunConfig, work: Work) -> float | None:
    """Return the hours of the network between nodes; None: unknown bandwidth."""
    cfg = cfg.for_stage(work.stage)
    setup, micro_steps = run_setup(cfg)
    if work.arch is None:
        seconds = network_seconds_of(*_sizes(cfg, work), setup, cfg.cluster, micro_steps)
    else:
        method = run_method(cfg, work)
        seconds = network_seconds(work.arch, method, setup, cfg.cluster, micro_steps)
    if seconds is None:
        return None
    return seconds * work.tokens / cfg.train.batch_tokens / cfg.cluster.goodput / 3600


def overlaps(cfg: RunConfig) -> bool:
    """Return whether the trainer communicates while it computes."""
    return cfg.zero.overlaps(gpu=cfg.hardware.kind == "gpu")


def run_projection(cfg: RunConfig, work: Work) -> Projection:
    """Return time, money and energy of `work`; includes the network between nodes where known."""
    length = cfg.for_stage(work.stage).train.sequence_length
    if work.arch is None:
        costs = work.counts.flops(cfg.train.recompute == "full")
        flops = math.ceil(costs.hardware_per_sequence * work.tokens / length)
    else:
        flops = hardware_flops(work.arch, run_method(cfg, work), work.tokens, length)
    sent = _network_hours(cfg, work)
    return project_flops(flops, run_machine(cfg), sent, overlap=overlaps(cfg))


def relative_cost(cfg: RunConfig, works: Sequence[Work], others: Sequence[Work]) -> float | None:
    """Return the cost of `works` / that of `others`: in hours, else in hardware FLOPs.

    None where `works` is empty.
    """
    both = [[run_projection(cfg, work) for work in each] for each in (works, others)]
    if not works:
        return None
    hours = [[p.mid.hours for p in each if p.mid.hours is not None] for each in both]
    if len(hours[0]) == len(works):
        return sum(hours[0]) / sum(hours[1])
    return sum(p.flops for p in both[0]) / sum(p.flops for p in both[1])
