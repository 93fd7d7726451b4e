"""Real DeepSpeed: stopped and resumed, divided in every way, at every ZeRO stage.

A process starts in seconds and trains in fractions of one, so each trains several tasks.
"""

import re

import pytest
from start_ranks import METHODS, run

VARIANTS = {
    **{f"zero{stage}": {"zero": stage, "method": "lora"} for stage in (0, 1, 2, 3)},
    **{name: {"zero": 1, **needs} for name, needs in METHODS.items()},
    "bf16": {"zero": 2, "precision": "bf16"},
}


@pytest.mark.parametrize("processes", [1, 2])
def test_resumed_it_ends_with_the_same_bits(tmp_path, processes):
    whole = [{**v, "folder": tmp_path / f"{name}-whole"} for name, v in VARIANTS.items()]
    cut = [{**v, "folder": tmp_path / f"{name}-cut"} for name, v in VARIANTS.items()]
    results = run([*whole, *({**task, "stop_at": 4} for task in cut)], processes)
    assert results[len(VARIANTS) :] == [None] * len(VARIANTS)
    assert len(list(tmp_path.glob("*-cut/step-00000003/state.safetensors"))) == len(VARIANTS)
    for name, before, after in zip(VARIANTS, results, run(cut, processes), strict=False):
        assert after["hash"] == before["hash"], name
        assert after["losses"] == before["losses"][3:], name


def test_a_checkpoint_resumes_at_another_stage_and_number_of_ranks(tmp_path):
    cut = {"folder": tmp_path / "cut", "stop_at": 3}
    whole, _ = run([{"folder": tmp_path / "whole"}, {**cut, "zero": 1}], processes=2)
    run([{**cut, "zero": 3}], processes=1)
    (again,) = run([{**cut, "zero": 2, "stop_at": 0}], processes=2)
    assert again["losses"] == pytest.approx(whole["losses"][4:], abs=1e-5)


def test_the_division_of_a_step_changes_nothing(tmp_path):
    tasks = [{"folder": tmp_path / str(micro), "micro": micro} for micro in (None, 32, 64)]
    one = run(tasks, processes=1)
    two = run([{**t, "folder": f"{t['folder']}-two"} for t in tasks], processes=2)
    losses = [result["losses"] for result in [*one, *two]]
    assert losses[0][0] > losses[0][-1]
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], abs=1e-5)


def test_a_broken_newest_checkpoint_is_skipped(tmp_path):
    cut = {"folder": tmp_path / "cut"}
    first = [{"folder": tmp_path / "whole"}, {**cut, "stop_at": 3}, {**cut, "stop_at": 3}]
    whole, *_ = run(first)
    newest = sorted((tmp_path / "cut").glob("step-*"))[-1] / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    (again,) = run([cut])
    assert again["hash"] == whole["hash"]
    assert len(again["losses"]) == 4


@pytest.mark.parametrize("processes", [1, 2])
def test_a_loss_that_is_nan_ends_the_run_and_is_not_saved(tmp_path, processes):
    (result,) = run([{"folder": tmp_path / "nan", "poison": True}], processes)
    assert re.search(r"\bstep 1: .*\bNaN\b", result["error"])
    assert re.search(r"\bstages\.full\.learning_rate .*\b0\.01\b", result["error"])
    assert not list(tmp_path.glob("nan/step-*"))
