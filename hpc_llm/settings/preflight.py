"""Settings of `hpc-llm preflight` (`conf/preflight/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_positive

__all__ = ["PreflightSettings"]


@dataclass(kw_only=True)
class PreflightSettings:
    """What is measured on each node, and which node is bad."""

    slow_factor: float
    """Slower than the median of all nodes by this factor is bad: matrix products, network."""
    min_peak_share: float | None
    """Share of the catalogue's peak that a matrix product on a GPU must reach; null: any."""
    min_free_gib: float
    """Free memory of each device, GiB; on a CPU that of the node."""
    min_disk_gib: float
    """Free space of the run folder and of /tmp, GiB."""
    max_clock_seconds: float
    """How far a node's clock may be from the others'."""
    seconds: float
    """How long each device multiplies matrices."""
    message_mib: int
    """What nodes send each other, MiB."""
    pairings: int
    """With how many others each node is measured; time grows with it, not with the nodes."""
    wait_seconds: float
    """A rank that says nothing for so long is given up, and its node is bad."""

    def __post_init__(self) -> None:
        """Check the values."""
        for key in ("seconds", "message_mib", "pairings", "wait_seconds", "max_clock_seconds"):
            require_positive(f"preflight.{key}", getattr(self, key))
        for key in ("min_free_gib", "min_disk_gib"):
            if getattr(self, key) < 0:
                raise UserError(f"preflight.{key}", getattr(self, key), "must be 0 or above")
        if self.slow_factor <= 1:
            raise UserError(
                "preflight.slow_factor",
                self.slow_factor,
                "must be above 1",
                "at 1.5 a node is bad that takes one and a half times as long as the median",
            )
        if self.min_peak_share is not None and not 0 <= self.min_peak_share < 1:
            raise UserError(
                "preflight.min_peak_share",
                self.min_peak_share,
                "must be a share of the peak, from 0 and below 1",
                "null judges by the other nodes alone",
            )
