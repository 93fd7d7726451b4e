"""Bandwidth between pairs of nodes and of an all-reduce, over any message passing library."""

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Link", "measure_all_reduce", "measure_pairs", "rounds"]

REPEATS = 3  # after a warm-up that sets up the connection; the fastest counts


@dataclass(frozen=True, kw_only=True)
class Link:
    """Communication between ranks. Each call returns when its data has arrived."""

    name: str
    """nccl, gloo or mpi."""
    bytes: int
    """Size of one message."""
    send: Callable[[int], None]
    """Send a message to a rank."""
    receive: Callable[[int], None]
    """Receive a message from a rank."""
    all_reduce: Callable[[], None]
    """Sum a message over all ranks."""
    barrier: Callable[[], None]
    """Wait for all ranks."""


def rounds(count: int, most: int) -> list[list[tuple[int, int]]]:
    """Pair up `count` nodes: each node at most once per round, each pair at most once.

    The circle method of round-robin tournaments: one node is fixed, the others rotate by one
    place. At most `most` rounds; a full schedule has count - 1, or count if that is odd.
    """
    circle: list[int | None] = [*range(count), *([None] if count % 2 else [])]
    found = []
    for _ in range(min(most, len(circle) - 1)):
        half = len(circle) // 2
        pairs = zip(circle[:half], reversed(circle[half:]), strict=True)
        found.append([(a, b) for a, b in pairs if a is not None and b is not None])
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return found


def measure_pairs(link: Link, rank: int, leaders: list[int], most: int) -> list[tuple[int, float]]:
    """Return (peer rank, round-trip bandwidth in 10^9 bytes/s) pairs of this rank (collective).

    `leaders` holds one rank per node; other ranks return an empty list. All pairs of a round
    communicate at the same time, as in an all-reduce. A message goes there and back; the bandwidth
    is 0 if that fails. The rank that sends first reports the value: for its peer the message may
    have arrived before the clock starts.
    """
    rates = []
    for pairs in rounds(len(leaders), most):
        link.barrier()
        for first, second in pairs:
            peers = (leaders[first], leaders[second])
            if rank not in peers:
                continue
            rate = _rate(link, rank, peers)
            if rank == peers[0] or not rate:
                rates.append((peers[1 - peers.index(rank)], rate))
    return rates


def _rate(link: Link, rank: int, peers: tuple[int, int]) -> float:
    try:
        seconds = min(_there_and_back(link, rank, peers) for _ in range(1 + REPEATS))
    except RuntimeError:
        return 0.0
    return 2 * link.bytes / seconds / 1e9


def _there_and_back(link: Link, rank: int, peers: tuple[int, int]) -> float:
    began = time.perf_counter()
    if rank == peers[0]:
        link.send(peers[1])
        link.receive(peers[1])
    else:
        link.receive(peers[0])
        link.send(peers[0])
    return time.perf_counter() - began


def measure_all_reduce(link: Link) -> float:
    """Return the seconds of one all-reduce over all ranks (collective)."""
    taken = []
    for _ in range(1 + REPEATS):
        link.barrier()
        began = time.perf_counter()
        link.all_reduce()
        taken.append(time.perf_counter() - began)
    return min(taken)
