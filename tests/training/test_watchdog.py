"""The watchdog: who is behind, and a rank that hangs, named by the others and ended."""

import os
import subprocess
import sys
import textwrap

import pytest

from hpc_llm.launch import run_ranks
from hpc_llm.training.watchdog import behind

NOW = 1000.0


def post(step, phase, age=1.0, host="n1"):
    return {"step": step, "phase": phase, "time": NOW - age, "host": host}


def test_the_rank_that_is_least_far_keeps_the_others_waiting():
    posts = [post(7, 1), post(7, 1), post(6, 3, host="n2"), post(7, 1)]
    assert behind(posts, NOW, 10.0) == ["rank 2 on n2 updates (step 6)"]
    posts = [post(7, 1), post(7, 0, host="n2")]
    assert behind(posts, NOW, 10.0) == ["rank 1 on n2 reads (step 7)"]


def test_a_rank_that_says_nothing_is_named_first():
    posts = [post(7, 1), None, post(6, 3, age=31.0, host="n2")]
    assert behind(posts, NOW, 10.0) == ["rank 1 is silent", "rank 2 on n2 is silent"]


PROGRAM = textwrap.dedent(
    """
    import os, signal, sys, time
    from hpc_llm.distributed import detect_ranks
    from hpc_llm.training import process_group
    from hpc_llm.training.watchdog import Watchdog
    ranks = detect_ranks(os.environ)
    process_group.start(ranks, 1)
    how = sys.argv[1]
    with Watchdog(ranks, 0.05, lambda names: print("told", names, flush=True)) as dog:
        for step in range(3):
            dog.at(step, "reads")
            if step == 2 and ranks.rank == 1:
                if how == "frozen":
                    os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(600)
            dog.at(step, "synchronises")
            process_group.barrier()
    """
)


@pytest.mark.parametrize(
    ("how", "names"), [("hangs", "rank 1 on .* reads .step 2."), ("frozen", "rank 1.* is silent")]
)
def test_a_rank_that_hangs_is_named_and_the_run_ends(capfd, tmp_path, how, names):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    capfd.readouterr()
    code = run_ranks([how], 2, os.environ, command=[sys.executable, str(program)])
    said = capfd.readouterr()
    assert code == 1
    assert "guards.stall_minutes" in said.err
    found = subprocess.run(
        ["grep", "-E", f"told .*{names}"], input=said.out, text=True, check=False
    )
    assert found.returncode == 0, said.out + said.err
