"""Settings of DeepSpeed ZeRO (`conf/zero/`)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields, count

__all__ = ["SOURCES", "ZeroSettings"]

ELEMENTS = 10**13
# The setting behind each key of DeepSpeed that is derived, named in the error for a conflicting
# `zero.extra` key.
SOURCES = {
    "train_batch_size": "train.batch_tokens",
    "train_micro_batch_size_per_gpu": "train.micro_batch_tokens",
    "gradient_accumulation_steps": "train.micro_batch_tokens",
    "gradient_clipping": "train.gradient_clipping",
    "optimizer": "train (AdamW, its learning rates and weight decays)",
    "scheduler": "schedule",
    "bf16": "train.precision",
    "bfloat16": "train.precision",
    "fp16": "train.precision",
    "zero_optimization.stage": "zero.stage",
    "zero_optimization.reduce_bucket_size": "zero.bucket_elements",
    "zero_optimization.allgather_bucket_size": "zero.bucket_elements",
    "zero_optimization.overlap_comm": "zero.overlap",
    "zero_optimization.stage3_prefetch_bucket_size": "zero.prefetch_elements",
    "zero_optimization.stage3_param_persistence_threshold": "zero.persistence_elements",
    "zero_optimization.stage3_model_persistence_threshold": "zero.model_persistence_elements",
    "zero_optimization.stage3_max_live_parameters": "zero.live_elements",
    "zero_optimization.stage3_max_reuse_distance": "zero.reuse_elements",
    "zero_optimization.zero_hpz_partition_size": "zero.node_partition",
    "zero_optimization.zero_quantized_weights": "zero.quantized_weights",
    "zero_optimization.zero_quantized_gradients": "zero.quantized_gradients",
    "zero_optimization.offload_optimizer": "zero.offload_optimizer",
    "zero_optimization.offload_param": "zero.offload_parameters",
}
OPEN = ("bf16", "fp16", "zero_optimization.offload_optimizer", "zero_optimization.offload_param")
"""Sections of which only `enabled` or `device` is derived."""
STAGE_3 = ("node_partition", "quantized_weights", "quantized_gradients", "offload_parameters")


@dataclass(kw_only=True)
class ZeroSettings:
    """How states are partitioned across ranks (Rajbhandari et al. 2020)."""

    stage: int = count(3, 0)
    """Partitioned states: 0: none, 1: optimizer states, 2: and gradients, 3: and parameters. In
    fp32, a single rank uses 0 instead of 1 and 2: it has nothing to partition."""
    offload_optimizer: bool
    """Offload optimizer states to host memory (stages 1 to 3)."""
    offload_parameters: bool
    """Offload parameters to host memory (stage 3)."""
    bucket_elements: int = count(ELEMENTS)
    """Elements per reduce or all-gather bucket."""
    overlap: bool | None = None
    """Communicate on a stream of its own while the layers compute (GPU only). null: true for stage
    3 on a GPU, else false."""
    prefetch_elements: int = count(ELEMENTS, 0, 50_000_000)
    """Stage 3: parameters gathered ahead of their layer. More hides a slower network, up to one
    layer; each takes memory until it is used."""
    persistence_elements: int = count(ELEMENTS, 0, 100_000)
    """Stage 3: parameters with fewer elements stay whole on every rank (norms, biases): gathering
    them would cost a message each."""
    model_persistence_elements: int | None = count(10**15, 0, None)
    """Stage 3: elements of all parameters that stay whole; null: no limit."""
    live_elements: int = count(ELEMENTS, 0, 1_000_000_000)
    """Stage 3: gathered parameters kept at a time; more are not prefetched."""
    reuse_elements: int = count(ELEMENTS, 0, 1_000_000_000)
    """Stage 3: keep a layer gathered if the backward pass needs it again within so many parameters;
    0 frees every layer after its forward pass."""
    node_partition: bool = False
    """Stage 3: keep a second copy of the 16-bit parameters partitioned over the ranks of a node, so
    that layers are gathered inside it (hpZ of ZeRO++, Wang et al. 2023, arXiv 2306.10209). Between
    nodes, trained parameters are gathered once a step and frozen ones never."""
    quantized_weights: bool = False
    """Stage 3 on GPUs: gather parameters as int8 (qwZ of ZeRO++). Changes results."""
    quantized_gradients: bool = False
    """Stage 3 on GPUs: reduce gradients as int4 (qgZ of ZeRO++). Changes results."""
    extra: dict[str, Any]
    """Further keys of the DeepSpeed configuration, passed through unchanged; unknown keys and
    conflicts with other settings are errors."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "zero")
        if self.needs_stage_3 and self.stage != 3:
            raise UserError(self.needs_stage_3, "true", f"needs zero.stage=3, not {self.stage}")
        for name in ("offload_optimizer", "overlap"):
            if getattr(self, name) and self.stage == 0:
                raise UserError(f"zero.{name}", "true", "needs zero.stage=1, 2 or 3, not 0")
        _refuse_auto(self.extra, "zero.extra")
        _refuse_derived(self.extra)

    @property
    def needs_stage_3(self) -> str | None:
        """Return the first setting that is chosen and needs stage 3; None: there is none."""
        return next((f"zero.{name}" for name in STAGE_3 if getattr(self, name)), None)

    @property
    def gpu_only(self) -> str | None:
        """Return the first setting that is chosen and works on GPUs only; None: there is none."""
        names = ("overlap", "quantized_weights", "quantized_gradients")
        return next((f"zero.{name}" for name in names if getattr(self, name)), None)

    def check_devices(self, *, gpu: bool, node_ranks: int | None) -> None:
        """Raise `UserError` for settings that the devices or the ranks of a node do not allow.

        `node_ranks` None: their number is not known yet.
        """
        if self.gpu_only and not gpu:
            fix = "remove it, or choose the GPU with hardware=NAME"
            raise UserError(self.gpu_only, "true", "works on GPUs only; this is a CPU", fix)
        if self.node_partition and node_ranks == 1:
            rule = "needs at least 2 ranks per node; there is 1"
            raise UserError("zero.node_partition", "true", rule, "remove it")

    def overlaps(self, *, gpu: bool) -> bool:
        """Return whether communication overlaps with compute."""
        return (gpu and self.stage == 3) if self.overlap is None else self.overlap


def _refuse_auto(value: Any, key: str) -> None:
    """Raise `UserError` for `auto`, which DeepSpeed itself does not support."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_auto(inner, f"{key}.{name}")
    elif value == "auto":
        raise UserError(
            key,
            "auto",
            "auto is not supported here",
            "remove it or set a value",
        )


def _refuse_derived(extra: dict[str, Any]) -> None:
    """Raise `UserError` for keys that are derived from other settings, or never supported."""
    for path, value in _leaves(extra):
        parts = path.split(".")
        starts = [".".join(parts[: end + 1]) for end in range(len(parts))]
        source = next((start for start in starts if start in SOURCES), None)
        key = f"zero.extra.{path}"
        if parts[0] == "pipeline":
            rule, fix = "pipeline parallelism is not supported", "use zero=stage3: docs/scaling.md"
            raise UserError(key, value, rule, fix)
        if source and (source not in OPEN or path == source or parts[-1] in ("enabled", "device")):
            raise UserError(key, value, f"is set by {SOURCES[source]}", "change it there")


def _leaves(values: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and value of each setting; an empty section is one."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield path + name, value
