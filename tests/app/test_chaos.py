"""A sample of `make chaos`: killed while saving, behind the first epoch, one rank of two."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chaos"))
from chaos import survive


@pytest.mark.parametrize(("stage", "ranks", "kills"), [(1, 1, 4), (3, 2, 5)])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(
    tmp_path, stage, ranks, kills
):
    words = [f"zero=stage{stage}", f"launch.processes={ranks}"]
    outcome = survive(tmp_path, "run", words, kills, seed=7)
    assert outcome.kills.total() == kills
    assert outcome.same_bits
    assert outcome.exact_bill
