"""The network of a site: where ranks meet, and what its libraries have to be told."""

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
    """Set what is missing of `settings` in `environment`; return `ranks` with where they meet.

    `suffix` turns a node's name into that of its fast network, as jwb0038 into jwb0038i at Juelich.
    It is put behind a name that was derived from the scheduler's list of nodes, not behind a
    MASTER_ADDR that was given, nor where all ranks are on one node.
    """
    for key, value in settings.items():
        environment.setdefault(key, value)
    derived = not environment.get("MASTER_ADDR") and ranks.local_world_size < ranks.world_size
    if not suffix or not derived:
        return ranks
    host, dot, domain = ranks.master_address.partition(".")
    return replace(ranks, master_address=f"{host}{suffix}{dot}{domain}")
