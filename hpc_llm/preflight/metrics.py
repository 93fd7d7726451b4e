"""Metrics measured on each rank, and by host. An unknown value is None, never 0."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpc_llm.distributed import Ranks, expand_hostlist, expand_tasks_per_node

__all__ = ["HostFigures", "RankFigures", "ReduceFigures", "by_host", "hosts_of_ranks"]


@dataclass(frozen=True, kw_only=True)
class RankFigures:
    """Metrics of one rank, its device and its node."""

    rank: int
    host: str
    device: str
    """The driver's name of the device."""
    devices: int
    """Devices found on the node."""
    devices_expected: int
    free_gib: float | None = None
    """Free memory of the device; on a CPU, of the node."""
    flops_per_second: float | None = None
    """Speed of matrix products."""
    peak_flops_per_second: float | None = None
    """The catalogue's peak for the same precision; None if unknown."""
    run_gib: float | None = None
    """Free space on the run folder's file system."""
    tmp_gib: float | None = None
    """Free space in the node's temporary folder."""
    mpi: bool = False
    """Whether MPI launched the rank and mpi4py is installed."""
    error: str | None = None
    """The error during measurement, if any."""


@dataclass(frozen=True, kw_only=True)
class ReduceFigures:
    """One all-reduce over all ranks."""

    link: str
    """nccl, gloo or mpi."""
    ranks: int
    bytes: int
    seconds: float

    @property
    def gb_per_second(self) -> float:
        """Bus bandwidth, 10^9 bytes/s: 2 (n-1)/n bytes/seconds (as in nccl-tests)."""
        return 2 * (self.ranks - 1) / self.ranks * self.bytes / self.seconds / 1e9


@dataclass(kw_only=True)
class HostFigures:
    """Metrics of one node: its ranks and its links."""

    host: str
    ranks: list[RankFigures]
    """Ranks that have reported."""
    silent: list[int] = field(default_factory=list)
    """Ranks that have not reported."""
    clock_seconds: float | None = None
    """Its clock minus that of rank 0."""
    links: dict[str, float] = field(default_factory=dict)
    """Bandwidth to its best partner by link, 10^9 bytes/s; the best, as a partner may be bad."""

    @property
    def slowest(self) -> RankFigures | None:
        """The rank with the slowest matrix products."""
        timed = [rank for rank in self.ranks if rank.flops_per_second is not None]
        return min(timed, key=lambda rank: rank.flops_per_second or 0.0, default=None)

    @property
    def peak_share(self) -> float | None:
        """Fraction of the catalogue's peak reached by its slowest device."""
        slowest = self.slowest
        if slowest is None or not slowest.peak_flops_per_second:
            return None
        return (slowest.flops_per_second or 0.0) / slowest.peak_flops_per_second

    def least(self, key: str) -> float | None:
        """Return the minimum of a metric over its ranks."""
        values = [getattr(rank, key) for rank in self.ranks]
        return min((value for value in values if value is not None), default=None)


def by_host(
    found: Sequence[RankFigures | None], places: Sequence[str | None]
) -> dict[str, HostFigures]:
    """Group ranks by host, in rank order.

    `found` holds the metrics of each rank, None if it is silent; `places` the host of each rank,
    None if unknown: a silent rank without a host is listed as host `(rank 3)`.
    """
    hosts: dict[str, HostFigures] = {}
    for number, (rank, place) in enumerate(zip(found, places, strict=True)):
        name = rank.host if rank else place or f"(rank {number})"
        host = hosts.setdefault(name, HostFigures(host=name, ranks=[]))
        if rank:
            host.ranks.append(rank)
        else:
            host.silent.append(number)
    return hosts


def hosts_of_ranks(ranks: Ranks, environment: Mapping[str, str]) -> list[str | None]:
    """Return the host on which srun placed each rank, for ranks that do not report it.

    All None if that is unknown: another launcher, or a distribution of tasks other than block.
    """
    unknown: list[str | None] = [None] * ranks.world_size
    nodes = environment.get("SLURM_STEP_NODELIST")
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE")
    if ranks.launcher != "slurm" or not nodes or not tasks:
        return unknown
    hosts, counts = expand_hostlist(nodes), expand_tasks_per_node(tasks)
    dealt = environment.get("SLURM_DISTRIBUTION", "block").split(":")[0].lower()
    in_order = dealt == "block" or set(counts) == {1}
    if len(hosts) != len(counts) or sum(counts) != ranks.world_size or not in_order:
        return unknown
    return [host for host, count in zip(hosts, counts, strict=True) for _ in range(count)]
