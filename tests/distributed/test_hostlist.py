"""Slurm's notations, written out by hand; tests/slurm compares with `scontrol`."""

import pytest
from errors import user_error

from hpc_llm.distributed import expand_hostlist, expand_tasks_per_node


@pytest.mark.parametrize(
    ("hostlist", "hosts"),
    [
        ("gpu1", ["gpu1"]),
        ("node[01-03,7],gpu1", ["node01", "node02", "node03", "node7", "gpu1"]),
        ("a,b-1.site.org", ["a", "b-1.site.org"]),
        ("n[9-11]", ["n9", "n10", "n11"]),
        ("n[099-101]-ib", ["n099-ib", "n100-ib", "n101-ib"]),
        ("r[1-2]n[01-02]", ["r1n01", "r1n02", "r2n01", "r2n02"]),
    ],
)
def test_hostlist_is_written_out(hostlist: str, hosts: list[str]) -> None:
    assert expand_hostlist(hostlist) == hosts


@pytest.mark.parametrize("bad", ["", "n[1-", "n[3-1]", "n[a-b]", "a,,b", "a b", "n[]", "n]1["])
def test_bad_hostlist_is_reported(bad: str) -> None:
    with user_error("node list", "MASTER_ADDR", value=repr(bad)):
        expand_hostlist(bad)


def test_tasks_per_node() -> None:
    assert expand_tasks_per_node("4(x2),2") == [4, 4, 2]
    assert expand_tasks_per_node("1") == [1]
    with user_error("SLURM_STEP_TASKS_PER_NODE", "4(x2),2", value="4x2"):
        expand_tasks_per_node("4x2")
