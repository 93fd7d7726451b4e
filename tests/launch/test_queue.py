"""What Slurm prints, read: with stand-ins for squeue and sacct that print what Slurm 22.05 does."""

from pathlib import Path

import pytest

from hpc_llm.scheduler import job_states, live_jobs

SQUEUE = """\
7_0|RUNNING|node1|2026-01-01T00:00:00|1:00|10:00|None
7_2|PENDING||N/A|0:00|10:00|JobArrayTaskLimit
"""
SACCT = """\
7_0|PENDING|None assigned|Unknown|00:00:00|0:0
7_1|FAILED|node2|2026-01-01T00:00:00|00:00:09|3:0
8_[0-1,3%2]|CANCELLED by 0|None assigned|Unknown|00:00:00|0:0
9|TIMEOUT|node1|2026-01-01T00:00:00|00:10:00|0:15
"""


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (("squeue", SQUEUE), ("sacct", SACCT)):
        (tmp_path / f"{name}.txt").write_text(text)
        program = f'#!/bin/sh\necho "$@" > {tmp_path}/{name}.asked\ncat {tmp_path}/{name}.txt\n'
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    return tmp_path


def test_tasks_of_arrays_are_distinguished(answers: Path) -> None:
    jobs = [*(f"7_{task}" for task in range(3)), *(f"8_{task}" for task in range(4)), "9"]
    states, remarks = job_states(jobs)
    assert remarks == []
    assert {job: state.state for job, state in states.items()} == {
        "7_0": "RUNNING",  # accounting lags behind
        "7_1": "FAILED",
        "7_2": "PENDING",
        "8_0": "CANCELLED",
        "8_1": "CANCELLED",
        "8_3": "CANCELLED",
        "9": "TIMEOUT",
    }
    assert (states["7_1"].exit_code, states["9"].exit_code) == (3, 143)
    assert "--jobs=7,8,9" in (answers / "sacct.asked").read_text()


def test_an_array_lives_while_a_task_does(answers: Path) -> None:
    (answers / "squeue.txt").write_text("7_0\n7_2\n")
    assert live_jobs(["7", "7_1", "7_2", "8"]) == ["7", "7_2"]
