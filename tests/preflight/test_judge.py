"""Which node is bad, on figures made up for the purpose."""

import json
import re
from dataclasses import replace

import pytest
from errors import user_error

from hpc_llm.distributed import Ranks, expand_hostlist
from hpc_llm.errors import EXIT_FAILED, EXIT_NODES
from hpc_llm.preflight import RankFigures, ReduceFigures, Report, by_host, judge, write_report
from hpc_llm.preflight.judge import clock_offset
from hpc_llm.preflight.metrics import hosts_of_ranks
from hpc_llm.preflight.report import EXCLUDE, JSON
from hpc_llm.settings import PreflightSettings

LIMITS = {
    "slow_factor": 1.5,
    "min_peak_share": 0.4,
    "min_free_gib": 2.0,
    "min_disk_gib": 1.0,
    "max_clock_seconds": 5.0,
    "seconds": 2.0,
    "message_mib": 64,
    "pairings": 8,
    "wait_seconds": 60.0,
}


def rank(number: int, host: str, **figures) -> RankFigures:
    """A rank of a healthy node, but for `figures`."""
    usual = {
        "device": "H100",
        "devices": 2,
        "devices_expected": 2,
        "free_gib": 79.0,
        "flops_per_second": 600e12,
        "peak_flops_per_second": 989e12,
        "run_gib": 500.0,
        "tmp_gib": 50.0,
    }
    return RankFigures(rank=number, host=host, **{**usual, **figures})


def hosts(*rates: float | None, **figures):
    """Nodes a, b, c, ... with one rank each, which reach these TFLOP/s; None is silent."""
    names = "abcdefgh"[: len(rates)]
    found = [
        None if rate is None else rank(n, names[n], flops_per_second=rate * 1e12, **figures)
        for n, rate in enumerate(rates)
    ]
    return by_host(found, list(names))


def bad(found, **limits) -> dict[str, str]:
    problems = judge(found, PreflightSettings(**{**LIMITS, **limits}))
    return {host: "; ".join(words) for host, words in problems.items()}


def test_nodes_that_differ_a_little_are_well() -> None:
    assert bad(hosts(600, 650, 580, 610)) == {}


@pytest.mark.parametrize("rates", [(600, 650, 390, 610), (600, 600, 390), (390, 600, 600)])
def test_slow_node_is_found(rates) -> None:
    slow = "abc"[rates.index(390)]
    assert list(bad(hosts(*rates, peak_flops_per_second=None))) == [slow]


def test_of_two_nodes_the_slower_one_is_bad() -> None:
    # The mean of the two would be 1.3 times the slower one, and hide it
    found = bad(hosts(600, 375, peak_flops_per_second=None))
    assert list(found) == ["b"]
    told = r"rank 1: 375 TFLOP/s, 1\.6 .* 600 \(preflight\.slow_factor=1\.5\)"
    assert re.fullmatch(told, found["b"])


def test_one_slow_device_makes_its_node_bad() -> None:
    ranks = [rank(n, "ab"[n // 2]) for n in range(4)]
    ranks[2] = rank(2, "b", flops_per_second=100e12)
    assert bad(by_host(ranks, ["a", "a", "b", "b"])).keys() == {"b"}


def test_nodes_that_are_slow_together_are_found_by_the_catalogue() -> None:
    found = bad(hosts(200, 200))
    assert re.search(r"\b20% .*H100, preflight\.min_peak_share=0\.4", found["a"])
    assert found.keys() == {"a", "b"}
    assert bad(hosts(200, 200), min_peak_share=None) == {}


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        ({"devices": 1}, "1 of 2 "),
        ({"free_gib": 1.5}, r"^1\.50 GiB .*, preflight\.min_free_gib=2$"),
        ({"run_gib": 0.5}, r"^0\.50 GiB .*, preflight\.min_disk_gib=1$"),
        ({"tmp_gib": 0.0}, r"^0\.00 GiB .*/tmp, preflight\.min_disk_gib=1$"),
        ({"error": "CUDA error", "flops_per_second": None}, "rank 1: CUDA error"),
    ],
)
def test_broken_node_is_found(figures, told: str) -> None:
    found = by_host([rank(0, "a"), rank(1, "b", **figures), rank(2, "c")], ["a", "b", "c"])
    assert bad(found).keys() == {"b"}
    assert re.search(told, bad(found)["b"])


def test_silent_node_is_bad_and_has_the_name_that_slurm_gave_it() -> None:
    found = bad(hosts(600, None, 600))
    assert list(found) == ["b"]
    assert re.search(r"preflight\.wait_seconds=60\b.*\brank 1$", found["b"])


def test_slow_link_is_its_nodes_and_not_its_partners() -> None:
    found = hosts(600, 600, 600)
    for name, rate in {"a": 24.0, "b": 25.0, "c": 3.0}.items():  # the best of each node's pairs
        found[name].links["nccl"] = rate
    assert bad(found).keys() == {"c"}
    assert re.match(r"nccl: 3 GB/s, 8\.0 .* 24 ", bad(found)["c"])
    found["c"].links["nccl"] = 0.0
    assert re.search(r"nccl: 0 GB/s, .* 24 ", bad(found)["c"])


@pytest.mark.parametrize(
    ("clocks", "wrong"),
    [((0.0, 1.0, -2.0), ""), ((0.0, 90.0, 0.1), "b"), ((0.0, 90.0, 90.1), "a"), ((0.0, -9.0), "b")],
)
def test_wrong_clock_is_found_also_that_of_rank_0(clocks, wrong: str) -> None:
    found = hosts(*[600] * len(clocks))
    for host, clock in zip(found.values(), clocks, strict=True):
        host.clock_seconds = clock
    assert bad(found).keys() == set(wrong)


def test_clock_offset_is_that_of_the_shortest_round_trip() -> None:
    # this clock is 10 s ahead; the second answer came back late
    pings = [(110.0, 100.5, 111.0), (120.0, 110.0, 129.0), (130.0, 120.1, 130.2)]
    assert clock_offset(pings) == pytest.approx(10.0, abs=0.01)


def test_ranks_that_say_nothing_are_where_slurm_has_put_them() -> None:
    step = {"SLURM_STEP_NODELIST": "n[08-10]", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1"}
    ranks = Ranks(world_size=5, master_port=1, launcher="slurm")
    assert hosts_of_ranks(ranks, step) == ["n08", "n08", "n09", "n09", "n10"]
    unknown = [None] * 5
    assert hosts_of_ranks(ranks, {**step, "SLURM_DISTRIBUTION": "cyclic"}) == unknown
    assert hosts_of_ranks(ranks, {**step, "SLURM_STEP_TASKS_PER_NODE": "2,1,1"}) == unknown
    assert hosts_of_ranks(replace(ranks, launcher="torchrun"), step) == unknown


def report(found, **values) -> Report:
    problems = judge(found, PreflightSettings(**LIMITS))
    usual = {"reduces": [], "failures": [], "seconds": 12.3}
    return Report(hosts=found, problems=problems, **{**usual, **values})


def test_exit_code_shows_whether_excluding_nodes_helps() -> None:
    assert report(hosts(600, 600)).code == 0
    assert report(hosts(600, 600, 100)).code == EXIT_NODES
    assert report(hosts(600, 600), failures=["rank 0 on a: timed out"]).code == EXIT_FAILED
    everywhere = report(hosts(600, 600, run_gib=0.0))
    assert (everywhere.exclude, everywhere.code) == ([], EXIT_FAILED)
    nameless = report(by_host([rank(0, "a"), None], ["a", None]))
    assert (nameless.exclude, nameless.code) == ([], EXIT_FAILED)


def test_report_is_a_table_a_json_and_a_list_for_sbatch(tmp_path) -> None:
    reduces = [ReduceFigures(link="nccl", ranks=4, bytes=2**26, seconds=0.01)]
    found = report(hosts(600, 100, 600, None), reduces=reduces)
    write_report(found, tmp_path, {"job": "17"})
    assert expand_hostlist((tmp_path / EXCLUDE).read_text().strip()) == ["b", "d"]
    read = json.loads((tmp_path / JSON).read_text())
    assert (read["job"], read["exclude"], list(read["hosts"])) == ("17", ["b", "d"], list("abcd"))
    assert read["all_reduce"][0]["gb_per_second"] == pytest.approx(2 * 3 / 4 * 2**26 / 1e7)
    lines = found.text.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == list("abcd")
    assert [line.split()[-1] for line in lines[1:5]] == ["ok", "BAD", "ok", "BAD"]
    assert "sbatch --exclude=b,d" in lines[-1]
    write_report(report(hosts(600, 600)), tmp_path, {})
    assert not (tmp_path / EXCLUDE).exists()


@pytest.mark.parametrize(
    ("key", "value", "limit"),
    [("slow_factor", 1.0, 1), ("min_peak_share", 1.0, 1), ("min_disk_gib", -1.0, 0),
     ("seconds", 0.0, 0)],
)  # fmt: skip
def test_wrong_settings_are_refused(key: str, value: float, limit: int) -> None:
    with user_error(f"preflight.{key}", limit, value=value):
        PreflightSettings(**{**LIMITS, key: value})
