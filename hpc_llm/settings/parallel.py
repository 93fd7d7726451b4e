"""Settings of model parallelism: ranks that share a sequence or a weight (`conf/parallel/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields, count
from hpc_llm.settings.train import TrainSettings
from hpc_llm.settings.zero import ZeroSettings

__all__ = ["ParallelSettings"]

# DeepSpeed's keys for the same, with groups and averages of their own
OTHERS = {"sequence_parallel_size": "sequence", "tensor_parallel": "tensor"}


@dataclass(kw_only=True)
class ParallelSettings:
    """How many ranks work on the same sequences; the others split the batch (data parallelism)."""

    sequence: int = count(4096, default=1)
    """Ranks that split each sequence among them (Jacobs et al. 2023, DeepSpeed Ulysses, arXiv
    2309.14509): activations of a rank shrink by it. 1: none."""
    tensor: int = count(4096, default=1)
    """Ranks that split each weight matrix among them (Shoeybi et al. 2019, arXiv 1909.08053). 1:
    none."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "parallel")

    def check(self, train: TrainSettings, zero: ZeroSettings) -> None:
        """Raise `UserError` for settings that do not work with these sizes."""
        for key, name in OTHERS.items():
            if key in zero.extra:
                raise UserError(
                    f"zero.extra.{key}", zero.extra[key], "is not passed on", f"use parallel.{name}"
                )
        for name in ("sequence", "tensor"):
            if (size := getattr(self, name)) > 1:
                key = f"parallel.{name}"
                raise UserError(key, size, "is not supported yet", f"use {key}=1")
