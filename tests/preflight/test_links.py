"""Who pairs off with whom, and whose clock a pair's bandwidth is measured by."""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from queue import Queue

import pytest

from hpc_llm.preflight import RankFigures, by_host
from hpc_llm.preflight.links import Link, measure_pairs, rounds
from hpc_llm.preflight.together import add_links

MEGABYTE = 1_000_000


@pytest.mark.parametrize("count", range(1, 10))
def test_each_node_meets_each_other_once(count: int) -> None:
    played = rounds(count, 100)
    pairs = [frozenset(pair) for one in played for pair in one]
    assert sorted(map(sorted, pairs)) == sorted(map(sorted, combinations(range(count), 2)))
    for one in played:
        assert len({node for pair in one for node in pair}) == 2 * len(one)
    assert len(rounds(count, 2)) == min(2, len(played))


def slow_wire(seconds: float) -> list[Link]:
    """Two ends of a wire on which a message is under way for `seconds`; the sender continues."""
    wires: list[Queue[float]] = [Queue(), Queue()]

    def end(rank: int) -> Link:
        def receive(_: int) -> None:
            time.sleep(max(0.0, wires[rank].get(timeout=30) + seconds - time.monotonic()))

        return Link(
            name="gloo",
            bytes=MEGABYTE,
            send=lambda peer: wires[peer].put(time.monotonic()),
            receive=receive,
            all_reduce=lambda: None,
            barrier=lambda: None,
        )

    return [end(0), end(1)]


def test_a_pair_is_as_fast_as_the_whole_way_there_and_back() -> None:
    ends = slow_wire(0.05)

    def measure(rank: int) -> list[tuple[int, float]]:
        time.sleep(0.2 * rank)  # the second comes late: its first message waits for it
        return measure_pairs(ends[rank], rank, [0, 1], 8)

    with ThreadPoolExecutor() as threads:
        found = [dict(pairs) for pairs in threads.map(measure, (0, 1))]
    whole_way = 2 * MEGABYTE / 0.1 / 1e9
    assert 0 < found[0][1] <= whole_way
    assert found[1].get(0, 0.0) <= whole_way


def test_a_figure_of_a_pair_is_that_of_both_and_the_best_counts() -> None:
    alone = [
        RankFigures(rank=n, host=host, device="H100", devices=1, devices_expected=1)
        for n, host in enumerate("abc")
    ]
    hosts = by_host(alone, list("abc"))
    pairs = [[(1, 24.0), (2, 3.0)], [(2, 4.0)], []]
    add_links(hosts, [[{"link": "nccl", "pairs": found} for found in pairs]])
    assert {name: host.links for name, host in hosts.items()} == {
        "a": {"nccl": 24.0},
        "b": {"nccl": 24.0},
        "c": {"nccl": 4.0},
    }
    add_links(hosts, [[{"link": "mpi", "pairs": [(1, 0.0)]}, None, None]])
    assert hosts["a"].links["mpi"] == hosts["b"].links["mpi"] == 0.0
