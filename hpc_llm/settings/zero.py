"""Settings of DeepSpeed ZeRO (`conf/zero/`)."""

from dataclasses import dataclass
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields, count

__all__ = ["ZeroSettings"]


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
    bucket_elements: int = count(10**13)
    """Elements per reduce or all-gather bucket."""
    extra: dict[str, Any]
    """Further keys of the DeepSpeed configuration, passed through unchanged; unknown keys and
    conflicts with other settings are errors."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "zero")
        if self.offload_parameters and self.stage != 3:
            raise UserError(
                "zero.offload_parameters",
                "true",
                f"needs zero.stage=3, not {self.stage}",
            )
        if self.offload_optimizer and self.stage == 0:
            raise UserError(
                "zero.offload_optimizer",
                "true",
                "needs zero.stage=1, 2 or 3, not 0",
            )
        _refuse_auto(self.extra, "zero.extra")


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
