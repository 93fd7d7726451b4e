"""Collective measurements: clocks, bandwidth between nodes, one all-reduce over all ranks.

Over torch.distributed, then over MPI if it launched all ranks. After a failure a rank still posts
what it has measured, so that rank 0 sees which node no other could reach.
"""

import faulthandler
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpc_llm.preflight.by_mpi import mpi_link
from hpc_llm.preflight.by_torch import measure_clock, torch_link
from hpc_llm.preflight.links import Link, measure_all_reduce, measure_pairs
from hpc_llm.preflight.measure import device_of
from hpc_llm.preflight.metrics import HostFigures, RankFigures, ReduceFigures
from hpc_llm.preflight.rendezvous import Rendezvous
from hpc_llm.settings import PreflightSettings

__all__ = ["add_links", "leaders", "measure_together"]

Found = dict[str, Any]


def leaders(alone: Sequence[RankFigures | None]) -> dict[str, list[int]]:
    """Return the ranks that measure the links, one per node, over `torch` and over `mpi`.

    Empty if a rank is silent or has failed: its peers would wait for it. `mpi` only if all ranks
    support it.
    """
    well = [rank for rank in alone if rank is not None and rank.error is None]
    if len(well) < len(alone) or len(well) == 1:
        return {"torch": [], "mpi": []}
    first: dict[str, int] = {}
    for rank in well:
        first.setdefault(rank.host, rank.rank)
    chosen = list(first.values())
    return {"torch": chosen, "mpi": chosen if all(rank.mpi for rank in well) else []}


def measure_together(
    rendezvous: Rendezvous, chosen: Mapping[str, list[int]], limits: PreflightSettings
) -> list[list[Found | None]]:
    """Measure over each library in turn, until one fails (collective).

    Rank 0 gets each rank's results for each library; the others get an empty list.
    """
    ways: dict[str, Callable[[Found, list[int]], None]] = {
        "torch": lambda found, who: _by_torch(found, who, rendezvous, limits),
        "mpi": lambda found, who: _by_mpi(found, who, rendezvous, limits),
    }
    gathered = []
    for way, measure in ways.items():
        if not chosen[way]:
            continue
        rendezvous.post(way, _measured(measure, chosen[way]))
        if rendezvous.ranks.is_first:
            posts = rendezvous.gather(way, within=limits.wait_seconds)
            gathered.append(posts)
            rendezvous.announce(f"after {way}", all(post and "error" not in post for post in posts))
        if not rendezvous.hear(f"after {way}"):
            break
    return gathered


def _measured(measure: Callable[[Found, list[int]], None], chosen: list[int]) -> Found:
    """Return the results of `measure`, with its `error` if it failed."""
    found: Found = {}
    try:
        measure(found, chosen)
    except (ImportError, OSError, RuntimeError) as error:  # torch and MPI raise RuntimeErrors
        found["error"] = " ".join(str(error).split())[:300]
    return found


def _by_torch(
    found: Found, chosen: list[int], rendezvous: Rendezvous, limits: PreflightSettings
) -> None:
    size = limits.message_mib * 2**20
    with torch_link(rendezvous, device_of(rendezvous.ranks), size, limits.wait_seconds) as link:
        found["clock"] = measure_clock(rendezvous.ranks.rank, chosen)
        _measure(found, link, rendezvous.ranks.rank, chosen, limits.pairings)


def _by_mpi(
    found: Found, chosen: list[int], rendezvous: Rendezvous, limits: PreflightSettings
) -> None:
    """MPI waits forever for a lost peer: after a timeout this process dumps its stack and exits."""
    faulthandler.dump_traceback_later(2 * limits.wait_seconds, exit=True)
    try:
        link = mpi_link(limits.message_mib * 2**20, rendezvous.ranks.world_size)
        _measure(found, link, rendezvous.ranks.rank, chosen, limits.pairings)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _measure(found: Found, link: Link, rank: int, chosen: list[int], most: int) -> None:
    found["link"] = link.name
    found["pairs"] = measure_pairs(link, rank, chosen, most)
    found["reduce"] = {"bytes": link.bytes, "seconds": measure_all_reduce(link)}


def add_links(
    hosts: Mapping[str, HostFigures], gathered: Sequence[Sequence[Found | None]]
) -> tuple[list[ReduceFigures], list[str]]:
    """Add clocks and links to `hosts`; return the all-reduces and the failures.

    A rank without a post counts as silent.
    """
    owners = {rank.rank: host for host in hosts.values() for rank in host.ranks}
    reduces, failures = [], []
    for posts in gathered:
        for rank, found in enumerate(posts):
            host = owners[rank]
            if found is None:
                host.silent.append(rank)
                continue
            if found.get("clock") is not None:
                host.clock_seconds = found["clock"]
            for peer, rate in found.get("pairs", []):
                for node in (host, owners[peer]):  # one value per link, for both ends
                    node.links[found["link"]] = max(rate, node.links.get(found["link"], 0.0))
            if "error" in found:
                failures.append(f"rank {rank} on {host.host}: {found['error']}")
        first = posts[0]
        if first and "reduce" in first:
            reduces.append(ReduceFigures(link=first["link"], ranks=len(posts), **first["reduce"]))
    return reduces, failures
