"""Settings of `hpc-llm preflight` (`conf/preflight/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_positive

__all__ = ["PreflightSettings"]


@dataclass(kw_only=True)
class PreflightSettings:
    """Measurements on each node, and requirements."""

    slow_factor: float
    """A node slower than the median by this factor is bad: matrix products, network."""
    min_peak_share: float | None
    """Minimum fraction of the catalogue's peak of matrix products on a GPU; null: no minimum."""
    min_free_gib: float
    """Minimum free memory of each device, GiB; on a CPU, of the node."""
    min_disk_gib: float
    """Minimum free space on the run folder's file system and in /tmp, GiB."""
    max_clock_seconds: float
    """Maximum deviation of a node's clock from the others."""
    seconds: float
    """Duration of the matrix products on each device."""
    message_mib: int
    """Message size between nodes, MiB."""
    pairings: int
    """Number of partners of each node; time grows with it, not with the number of nodes."""
    wait_seconds: float
    """Timeout after which a silent rank is given up and its node is bad."""

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
                "with 1.5, a node is bad if it takes 1.5 times as long as the median",
            )
        if self.min_peak_share is not None and not 0 <= self.min_peak_share < 1:
            raise UserError(
                "preflight.min_peak_share",
                self.min_peak_share,
                "must be a fraction of the peak, at least 0 and below 1",
                "null compares with the other nodes only",
            )
