"""Settings of `hpc-llm preflight` (`conf/preflight/`)."""

from dataclasses import dataclass

from hpc_llm.settings.checks import check_fields, count, number, positive

__all__ = ["PreflightSettings"]


@dataclass(kw_only=True)
class PreflightSettings:
    """Measurements on each node, and requirements."""

    slow_factor: float = number(1, 1e6, above=True)
    """A node slower than the median by this factor is bad: matrix products, network."""
    min_peak_share: float | None = number(0, 1, below=True)
    """Minimum fraction of the catalogue's peak of matrix products on a GPU; null: no minimum."""
    min_free_gib: float = number(0, 1e6)
    """Minimum free memory of each device, GiB; on a CPU, of the node."""
    min_disk_gib: float = number(0, 1e9)
    """Minimum free space on the run folder's file system and in /tmp, GiB."""
    max_clock_seconds: float = positive(1e6)
    """Maximum deviation of a node's clock from the others."""
    seconds: float = positive(1e5)
    """Duration of the matrix products on each device."""
    message_mib: int = count(10**5)
    """Message size between nodes, MiB."""
    pairings: int = count(10**6)
    """Number of partners of each node; time grows with it, not with the number of nodes."""
    wait_seconds: float = positive(1e6)
    """Timeout after which a silent rank is given up and its node is bad."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "preflight")
