"""Deal the items of an evaluation to the ranks and gather the results in order.

Item i is computed by rank i modulo the number of ranks. An item never depends on the dealing, so
results are the same bytes on any number of ranks (with equal devices and threads per rank).
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from hpc_llm.training import process_group

__all__ = ["dealt"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def dealt(
    items: Sequence[Item],
    compute: Callable[[Item], Result],
    idle: Callable[[], object] | None = None,
) -> list[Result]:
    """Return `compute(item)` of every item, in order, each computed by one rank (collective).

    `idle` is for items whose computation is collective, such as a forward pass of a partitioned
    model: ranks with an item less call it once, so that all ranks compute equally often. An error
    on one rank then ends that rank; without `idle` it ends all ranks with one message.
    """
    rank, size = process_group.place()
    own = items[rank::size]

    def work() -> list[Result]:
        found = [compute(item) for item in own]
        if idle is not None and len(own) * size < len(items):
            idle()
        return found

    if idle is None:
        shares = process_group.on_every_rank(work)
    else:
        found = work()
        shares = process_group.on_every_rank(lambda: found)
    return [shares[index % size][index // size] for index in range(len(items))]
