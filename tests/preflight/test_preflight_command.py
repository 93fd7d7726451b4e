"""`hpc-llm preflight` with two real ranks on this machine."""

import json
import re

from tiny import hpc_llm

from hpc_llm.accounting import Ledger
from hpc_llm.errors import EXIT_FAILED

# Two ranks that share two cores with other tests may differ much
QUICK = [
    "preflight.seconds=0.2",
    "preflight.message_mib=1",
    "preflight.slow_factor=50",
    "preflight.min_free_gib=0",
    "preflight.min_disk_gib=0",
]


def test_two_ranks_of_one_node_are_measured_and_charged(tmp_path) -> None:
    done = hpc_llm("preflight", *QUICK, "launch.processes=2", "run=x", f"runs_dir={tmp_path}")
    found = json.loads((tmp_path / "x/preflight.json").read_text())
    (host,) = found["hosts"].values()
    assert [rank["rank"] for rank in host["ranks"]] == [0, 1]
    for rank in host["ranks"]:
        assert rank["flops_per_second"] > 1e8
        assert rank["free_gib"] > 0
    (reduce,) = found["all_reduce"]
    assert (reduce["link"], reduce["ranks"], reduce["bytes"]) == ("gloo", 2, 2**20)
    assert (found["problems"], found["failures"]) == ({}, [])
    assert re.search(r"^1\b.* nodes\b", done.stdout, re.MULTILINE)
    assert not (tmp_path / "x/preflight.exclude").exists()
    (row,) = Ledger(tmp_path / "x/ledger.jsonl").rows()
    assert (row.stage, row.kind) == ("preflight", "cpu")
    assert found["seconds"] < row.seconds < 300  # loading torch is billed too


def test_fault_of_all_nodes_is_no_reason_to_leave_them_out(tmp_path) -> None:
    words = [*QUICK, "preflight.min_disk_gib=1_000_000_000", "run=x", f"runs_dir={tmp_path}"]
    done = hpc_llm("preflight", *words, check=False)
    assert done.returncode == EXIT_FAILED
    assert "preflight.min_disk_gib=1e+09" in done.stdout
    assert "--exclude" not in done.stdout
    assert not (tmp_path / "x/preflight.exclude").exists()


def test_jobs_of_slurm_are_made_by_the_script(tmp_path) -> None:
    done = hpc_llm("preflight", "launch=slurm", f"runs_dir={tmp_path}", check=False)
    assert done.returncode == 2
    assert re.search(r"launch=slurm: .*slurm/preflight\.sbatch", done.stderr)
