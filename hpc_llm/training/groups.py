"""Process groups of ranks that share a sequence or a weight."""

from functools import cache

import torch

__all__ = ["group_of"]


def group_of(groups: list[list[int]]) -> torch.distributed.ProcessGroup | None:
    """Return this rank's process group of `groups`, which have each rank once.

    None for groups of one rank. Collective over all ranks the first time.
    """
    return None if len(groups[0]) == 1 else _created(tuple(map(tuple, groups)))


@cache
def _created(groups: tuple[tuple[int, ...], ...]) -> torch.distributed.ProcessGroup:
    """Return the process group of this rank; created once, because each holds connections."""
    lists = [list(group) for group in groups]
    found: torch.distributed.ProcessGroup
    found, _ = torch.distributed.new_subgroups_by_enumeration(lists)
    return found
