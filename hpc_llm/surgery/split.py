"""Parameters that tensor parallelism splits over ranks: a full tensor from its parts, and back."""

from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Split", "split_of"]


@dataclass(frozen=True)
class Split:
    """How a parameter is split: into equal parts along one dimension, one per rank of a group."""

    shape: torch.Size
    """Of the full parameter."""
    dim: int
    """The dimension that is split."""
    index: int
    """The part of this rank."""
    parts: int
    """The number of parts."""
    group: Any
    """The process group; its ranks hold the parts in order."""

    def whole(self, part: torch.Tensor) -> torch.Tensor:
        """Return the full tensor from this rank's `part` of it, of any dtype (collective)."""
        found = [torch.empty_like(part) for _ in range(self.parts)]
        torch.distributed.all_gather(found, part.contiguous(), group=self.group)
        return torch.cat(found, self.dim)

    def part(self, whole: torch.Tensor) -> torch.Tensor:
        """Return this rank's part of a full tensor."""
        return whole.chunk(self.parts, self.dim)[self.index].contiguous()


def split_of(parameter: torch.Tensor) -> Split | None:
    """Return how a parameter is split over ranks; None if every rank holds all of it."""
    found: Split | None = getattr(parameter, "ranks_split", None)
    return found
