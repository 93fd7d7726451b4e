"""Layout of data, sequence and tensor parallelism over the ranks of a run.

Ranks of a tensor group are adjacent, because they communicate most; then come those of a sequence
group. So a group of up to as many ranks as a node has devices stays inside a node:

    rank = (data * sequence_parallel + sequence) * tensor_parallel + tensor
"""

from dataclasses import dataclass

from hpc_llm.errors import UserError

__all__ = ["Layout", "Place", "layout_of"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Coordinates of a rank; all count from 0."""

    data: int
    """Ranks with equal `data` work on the same sequences."""
    sequence: int
    """The part of each sequence."""
    tensor: int
    """The part of each weight matrix."""

    @property
    def counts_rows(self) -> bool:
        """Whether this rank counts the sequences that it shares with others."""
        return self.sequence == 0 and self.tensor == 0


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Sizes of the three kinds of parallelism; their product is the number of ranks."""

    data: int = 1
    sequence: int = 1
    tensor: int = 1

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.data * self.sequence * self.tensor

    def place(self, rank: int) -> Place:
        """Return the coordinates of `rank`."""
        assert 0 <= rank < self.world_size
        rest, tensor = divmod(rank, self.tensor)
        data, sequence = divmod(rest, self.sequence)
        return Place(data=data, sequence=sequence, tensor=tensor)

    def sequence_groups(self) -> list[list[int]]:
        """Return the ranks that split the same sequences, in order of their parts."""
        return self._groups("sequence")

    def tensor_groups(self) -> list[list[int]]:
        """Return the ranks that split the same weights, in order of their parts."""
        return self._groups("tensor")

    def _groups(self, kind: str) -> list[list[int]]:
        """Return the ranks that differ in the coordinate `kind` only."""
        found: dict[tuple[int, ...], list[int]] = {}
        for rank in range(self.world_size):
            place = self.place(rank)
            others = (getattr(place, k) for k in ("data", "sequence", "tensor") if k != kind)
            found.setdefault(tuple(others), []).append(rank)
        return list(found.values())


def layout_of(world_size: int, sequence: int, tensor: int) -> Layout:
    """Return the layout of `world_size` ranks; `UserError` if the sizes do not divide them."""
    for key, size, both in (
        ("sequence", sequence, sequence),
        ("tensor", tensor, sequence * tensor),
    ):
        if world_size % both:
            product = f", with parallel.sequence={sequence}" if both > size else ""
            raise UserError(
                f"parallel.{key}", size, f"must divide the number of ranks, {world_size}{product}",
                f"use parallel.{key}=1, or a multiple of {both} ranks",
            )  # fmt: skip
    return Layout(data=world_size // (sequence * tensor), sequence=sequence, tensor=tensor)
