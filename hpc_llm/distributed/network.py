"""The network of a site: rendezvous address and environment variables of its libraries."""

from collections.abc import Mapping, MutableMapping
from dataclasses import replace

from hpc_llm.distributed.ranks import Ranks

__all__ = ["join_network"]


def join_network(
    ranks: Ranks,
    suffix: str | None,
    settings: Mapping[str, str],
    environment: MutableMapping[str, str],
) -> Ranks:
    """Set missing variables of `settings` in `environment`; return `ranks` with the rendezvous.

    `suffix` turns the name of a node into its name on the fast network, as jwb0038 into jwb0038i at
    Juelich. It is appended to a name derived from the scheduler's node list, but not to an explicit
    MASTER_ADDR, and not if all ranks are on one node.
    """
    for key, value in settings.items():
        environment.setdefault(key, value)
    derived = not environment.get("MASTER_ADDR") and ranks.local_world_size < ranks.world_size
    if not suffix or not derived:
        return ranks
    host, dot, domain = ranks.master_address.partition(".")
    return replace(ranks, master_address=f"{host}{suffix}{dot}{domain}")
