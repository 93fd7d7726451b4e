"""Peak memory of one device by part, in bytes.

States follow Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054, section 3): with 16-bit weights and
fp32 Adam 2 N + 2 Nt + 12 Nt bytes for N parameters of which Nt train, partitioned among the ranks
according to the ZeRO stage. Activations and logits are those of `activations.py`. The memory of the
CUDA context is an estimate, and fragmentation is not included.
"""

from dataclasses import dataclass, replace

from hpc_llm.accounting.activations import held_activations
from hpc_llm.accounting.architecture import Architecture, parameter_count
from hpc_llm.accounting.method import Method, optimized_parameters
from hpc_llm.accounting.tensor import split_parameters
from hpc_llm.errors import UserError
from hpc_llm.settings import HardwareSettings
from hpc_llm.settings.checks import require_choice, require_positive

__all__ = ["MemoryPlan", "TrainingSetup", "fits", "memory", "memory_plan", "tight"]

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
OFFLOADS = ("none", "optimizer", "all")
CONTEXT_BYTES = 1_500_000_000  # CUDA context, cuBLAS and NCCL: 1 to 2 GB, an estimate
LIVE_ELEMENTS = 1_000_000_000  # DeepSpeed's default of stage3_max_live_parameters
ROOM = 0.95  # share of the memory that a plan may fill: fragmentation is not counted


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """How each device executes a step."""

    precision: str
    """fp32 | bf16 | fp16 (the last two with fp32 Adam and fp32 master weights)."""
    sequence_length: int
    """Tokens of a sequence."""
    micro_batch_size: int = 1
    """Sequences of one forward pass."""
    zero_stage: int = 0
    """ZeRO stage: 0, 1, 2 or 3."""
    data_parallel: int = 1
    """Data-parallel ranks."""
    offload_optimizer: bool = False
    """Optimizer states are in host memory (ZeRO 1 and above)."""
    offload_parameters: bool = False
    """Parameters are in host memory (ZeRO 3)."""
    bucket_elements: int = 50_000_000
    """Elements of a communication bucket."""
    sequence_parallel: int = 1
    """Ranks that split each sequence; they are among `data_parallel`, which counts for ZeRO."""
    tensor_parallel: int = 1
    """Ranks that split each weight matrix of the layers; they are not among `data_parallel`."""
    live_elements: int = LIVE_ELEMENTS
    """Parameters gathered at a time (ZeRO 3)."""
    node_ranks: int | None = None
    """Ranks of a node that keep a second copy of the parameters (hpZ); None: no such copy."""
    fused_loss: bool = True
    """The loss is computed in chunks, without all logits in memory."""

    def __post_init__(self) -> None:
        """Check the values."""
        require_choice("precision", self.precision, BYTES)
        for key in ("sequence_length", "micro_batch_size", "data_parallel", "bucket_elements"):
            require_positive(key, getattr(self, key))
        if self.node_ranks is not None:
            require_positive("node_ranks", self.node_ranks)
        if self.zero_stage not in (0, 1, 2, 3):
            raise UserError("zero_stage", self.zero_stage, "must be 0, 1, 2 or 3")
        if self.offload_parameters and self.zero_stage != 3:
            rule, fix = "must be 3 to offload parameters", "or offload the optimizer only"
            raise UserError("zero_stage", self.zero_stage, rule, fix)
        if self.offload_optimizer and self.zero_stage == 0:
            rule = "must be 1, 2 or 3 to offload the optimizer"
            raise UserError("zero_stage", self.zero_stage, rule)

    @property
    def width(self) -> int:
        """Bytes per weight."""
        return BYTES[self.precision]

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.micro_batch_size * self.sequence_length

    @property
    def rank_tokens(self) -> int:
        """Tokens of a micro-batch on one rank."""
        return self.tokens // self.sequence_parallel


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes on one device, by part."""

    weights: int
    """Model weights."""
    node_weights: int
    """Second copy of the weights, partitioned over the ranks of a node (hpZ)."""
    gradients: int
    """Gradients of the trainable parameters."""
    optimizer: int
    """Adam's moments and fp32 master weights."""
    activations: int
    """Activations saved for the backward pass."""
    logits: int
    """Temporary memory of the loss."""
    recomputed: int
    """One layer's activations, recomputed in the backward pass."""
    live_parameters: int
    """Weights gathered at a time by ZeRO 3."""
    buckets: int
    """Communication buffers."""
    context: int
    """CUDA context, an estimate."""

    @property
    def states(self) -> int:
        """Model states: weights, gradients and optimizer."""
        return self.weights + self.node_weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """The peak: at the loss, or in the backward pass, whichever is higher."""
        passing = max(self.logits, self.recomputed)
        steady = self.live_parameters + self.buckets + self.context
        return self.states + self.activations + passing + steady


def _shared(count: int, ranks: int) -> int:
    return -(-count // ranks)


def _logits(arch: Architecture, method: Method, setup: TrainingSetup) -> tuple[int, int]:
    """Bytes that the loss saves for the backward pass, and its temporary memory."""
    per_token = held_activations(arch, method, setup.width, setup.tensor_parallel)
    if not per_token.logits:
        return 0, 0
    if not setup.fused_loss:
        held = per_token.logits * setup.rank_tokens
        return held, 2 * held  # two more copies in the backward pass of log softmax
    trained = method.trains_head or (arch.tied_embeddings and method.trains_embedding)
    head = arch.hidden_size * arch.vocab_size * trained
    hidden = setup.width * arch.hidden_size * (setup.rank_tokens // setup.tensor_parallel)
    return hidden + setup.width * head, 4 * head  # the head's gradient is accumulated in fp32


def _held(total: int, split: int, setup: TrainingSetup, stage: int) -> int:
    """Parameters on a rank of `total`, of which `split` are split, if ZeRO partitions from `stage`.

    ZeRO-3 partitions what is not split over all ranks, because the model is built partitioned.
    """
    tensor, ranks = setup.tensor_parallel, setup.data_parallel
    whole, part = total - split, split // tensor
    if setup.zero_stage < stage:
        return whole + part
    return _shared(whole, ranks * tensor if setup.zero_stage == 3 else ranks) + _shared(part, ranks)


def memory_plan(arch: Architecture, method: Method, setup: TrainingSetup) -> MemoryPlan:
    """Return the peak memory of one rank in bytes, by part (recomputation is in `method`)."""
    count, trained = parameter_count(arch).total, optimized_parameters(arch, method)
    stage, ranks, width = setup.zero_stage, setup.data_parallel, setup.width
    split = split_parameters(arch) if setup.tensor_parallel > 1 else 0
    split_trained = split if method.trains_body else 0
    moments = 8 if setup.precision == "fp32" else 12
    kept = held_activations(arch, method, width, setup.tensor_parallel)
    held, on_top = _logits(arch, method, setup)
    optimizer = moments * _held(trained, split_trained, setup, 1)
    weights = width * _held(count, split, setup, 3)
    own = count - split + split // setup.tensor_parallel
    bucket = width * min(setup.bucket_elements, trained)
    copied = stage == 3 and setup.node_ranks and not setup.offload_parameters
    return MemoryPlan(
        weights=0 if setup.offload_parameters else weights,
        node_weights=width * _shared(count, setup.node_ranks or 1) if copied else 0,
        gradients=width * _held(trained, split_trained, setup, 2),
        optimizer=0 if setup.offload_optimizer else optimizer,
        activations=(kept.layers + kept.ends) * setup.rank_tokens + held,
        logits=on_top,
        recomputed=kept.one_layer * setup.rank_tokens,
        live_parameters=width * min(own, setup.live_elements) if stage == 3 and ranks > 1 else 0,
        buckets=2 * bucket if ranks > 1 else 0,
        context=CONTEXT_BYTES,
    )


def memory(  # noqa: PLR0913 (the public form: every choice by its own name)
    arch: Architecture,
    method: Method,
    zero_stage: int,
    data_parallel: int,
    micro_batch_size: int,
    sequence_length: int,
    precision: str,
    offload: str = "none",
    recompute: bool | None = None,
) -> MemoryPlan:
    """Return the peak memory of one of `data_parallel` ranks in bytes, by part.

    `precision` is fp32, bf16 or fp16; `offload` moves nothing (none), the optimizer or all states
    that ZeRO can offload (all: parameters too, stage 3) to the host; `recompute` None: as in
    `method`. The loss is fused, as in training; `memory_plan` has all choices. Raises `UserError`
    for unknown values and combinations that are not possible.
    """
    require_choice("offload", offload, OFFLOADS)
    setup = TrainingSetup(
        precision=precision,
        sequence_length=sequence_length,
        micro_batch_size=micro_batch_size,
        zero_stage=zero_stage,
        data_parallel=data_parallel,
        offload_optimizer=offload != "none",
        offload_parameters=offload == "all",
    )
    if recompute is not None:
        method = replace(method, recompute=recompute)
    return memory_plan(arch, method, setup)


def fits(plan: MemoryPlan, device: HardwareSettings) -> bool | None:
    """Whether the plan fits into 95 % of the device's memory: fragmentation is not counted.

    None where the memory of the device is unknown.
    """
    if device.memory_gib is None:
        return None
    return plan.total <= ROOM * device.memory_gib * 2**30


def tight(plan: MemoryPlan, device: HardwareSettings) -> bool | None:
    """Whether the plan fits into the device's memory, but not into 95 % of it; None: unknown."""
    if device.memory_gib is None:
        return None
    return not fits(plan, device) and plan.total <= device.memory_gib * 2**30
