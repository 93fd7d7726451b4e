"""Hours that Slurm charges, from the lines of `sacct`."""

import os

import pytest

from hpc_llm.scheduler import billed_hours


@pytest.fixture
def sacct(tmp_path):
    """A program `sacct` on PATH that prints the given lines."""

    def put(*lines):
        program = tmp_path / "sacct"
        program.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
        program.chmod(0o755)
        os.environ["PATH"] = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    return put


@pytest.mark.parametrize(
    ("tres", "gpus"),
    [
        ("billing=8,cpu=8,gres/gpu=4,mem=8G", 4),
        ("billing=8,cpu=8,gres/gpu:a100=4,mem=8G", 4),
        ("cpu=8,gres/gpu:a100=4,gres/gpu=4", 4),
        ("gres/gpu:a100=2,gres/gpu:v100=1", 3),
        ("cpu=8,gres/gpumem=40G,mem=8G", None),
        ("billing=8,cpu=8,mem=8G", None),
        ("", None),
    ],
)
def test_gpus_are_read_with_and_without_their_type(sacct, tres, gpus):
    sacct(f"7|7|3600|8|{tres}")
    assert billed_hours(["7"], "gpu") == gpus
    assert billed_hours(["7"], "cpu") == 8


def test_a_job_without_gpus_beside_one_with_some_costs_none(sacct):
    sacct("7|7|3600|8|cpu=8", "8|8|1800|8|cpu=8,gres/gpu:h100=4", "8|8|0|0|")
    assert billed_hours(["7", "8"], "gpu") == 2
    assert billed_hours(["7", "9"], "gpu") is None
