"""Settings of model parallelism: ranks that share a sequence or a weight (`conf/parallel/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checkpoint import CheckpointSettings
from hpc_llm.settings.checks import check_fields, count
from hpc_llm.settings.train import TrainSettings
from hpc_llm.settings.zero import ZeroSettings

__all__ = ["ParallelSettings"]

# DeepSpeed's keys for the same, with groups and averages of their own
OTHERS = {"sequence_parallel_size": "sequence", "tensor_parallel": "tensor"}

QUANTIZED = ("quantized_weights", "quantized_gradients")


@dataclass(kw_only=True)
class ParallelSettings:
    """How many ranks work on the same sequences; the others split the batch (data parallelism)."""

    sequence: int = count(4096, default=1)
    """Ranks that split each sequence among them (Jacobs et al. 2023, DeepSpeed Ulysses, arXiv
    2309.14509): activations of a rank shrink by it. 1: none."""
    tensor: int = count(4096, default=1)
    """Ranks that split each weight matrix of the layers among them (Shoeybi et al. 2019, arXiv
    1909.08053): weights and activations of a rank shrink by it. For ranks inside a node, which
    all-reduce activations in every layer. 1: none."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "parallel")

    @property
    def ranks(self) -> int:
        """Ranks that work on the same sequences."""
        return self.sequence * self.tensor

    def check(
        self,
        train: TrainSettings,
        zero: ZeroSettings,
        checkpoint: CheckpointSettings,
        attention: str,
    ) -> None:
        """Raise `UserError` for settings that do not work with these sizes."""
        for key, name in OTHERS.items():
            if key in zero.extra:
                raise UserError(
                    f"zero.extra.{key}", zero.extra[key], "is not passed on", f"use parallel.{name}"
                )
        if zero.node_partition and self.ranks > 1:
            rule = "gathers between data-parallel ranks only"
            fix = "use parallel.sequence=1 parallel.tensor=1, or remove it"
            raise UserError("zero.node_partition", "true", rule, fix)
        if self.ranks > 1 and train.recompute == "selective":
            raise UserError(
                "train.recompute",
                "selective",
                "works on layers that are not split over ranks (parallel.sequence, "
                "parallel.tensor)",
                "use train.recompute=none or full",
            )
        if self.tensor > 1:
            self._check_tensor(train, zero, checkpoint)
        if self.sequence > 1:
            self._check_rows(train)
            self._check_attention(train, attention)

    def _check_rows(self, train: TrainSettings) -> None:
        """Raise `UserError` for sequences that cannot be split evenly."""
        lengths = {"sequence_length": train.sequence_length}
        if train.sequence_warmup.start is not None:
            lengths["sequence_warmup.start"] = train.sequence_warmup.start
        for key, length in lengths.items():
            if length % self.sequence:
                raise UserError(
                    f"train.{key}",
                    length,
                    f"must be a multiple of parallel.sequence={self.sequence}",
                    f"use {-(-length // self.sequence) * self.sequence}",
                )

    def _check_attention(self, train: TrainSettings, attention: str) -> None:
        """Raise `UserError` for settings that exclude the attention of split sequences."""
        why = None
        if train.batching == "grouped":
            why = "train.batching=grouped has sequences of any length; use train.batching=packed"
        elif train.compile:
            why = "train.compile=true cannot compile its all-to-alls; use train.compile=false"
        elif attention not in ("auto", "sdpa"):
            why = f"model.attention={attention} does not see whole documents; use sdpa"
        if why is not None:
            rule, fix = why.split("; ")
            raise UserError("parallel.sequence", self.sequence, rule, fix)

    def _check_tensor(
        self, train: TrainSettings, zero: ZeroSettings, checkpoint: CheckpointSettings
    ) -> None:
        """Raise `UserError` for what does not work with split weights."""
        partitions = zero.extra.get("zero_optimization") or {}
        further = [f"zero.{key}=true" for key in QUANTIZED if getattr(zero, key)]
        further += [
            f"{key} of zero.extra"
            for key in partitions
            if key.startswith("zero_") and partitions[key]
        ]
        found = (
            (self.sequence > 1, f"parallel.sequence={self.sequence}", "use one of the two"),
            (train.compile, "train.compile=true", "use train.compile=false"),
            (
                zero.stage == 0 and train.precision != "fp32",
                f"zero.stage=0 in {train.precision}: DeepSpeed's gradient norm lacks parts",
                "use zero=stage1",
            ),
            (zero.quantized_weights, "zero.quantized_weights=true", "use one of the two"),
            (zero.quantized_gradients, "zero.quantized_gradients=true", "use one of the two"),
            (bool(further), "".join(further[:1]), "remove it"),
            (checkpoint.layout == "sharded", "checkpoint.layout=sharded", "use whole or auto"),
        )
        for wrong, other, fix in found:
            if wrong:
                key = "parallel.tensor"
                raise UserError(key, self.tensor, f"does not work with {other}", fix)
