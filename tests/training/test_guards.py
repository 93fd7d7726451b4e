"""Anomalies in a step: every kind, policy and ZeRO stage, on one rank and on two."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from start_ranks import run

from hpc_llm.config import compose, typed
from hpc_llm.training.guards import judge_gradient, judge_loss, recent_losses, spike_limit

GUARDS = replace(typed(compose([])).guards, spike="skip", not_finite="rollback")
FLAT = [2.0 + 0.01 * (i % 3) for i in range(30)]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_what_is_nan_is_found_and_so_is_the_next_one(loss):
    history = recent_losses(FLAT, loss, 100)
    assert history == FLAT  # it does not hide the next
    for _ in range(2):
        anomaly = judge_loss(GUARDS, history, loss)
        assert (anomaly.kind, anomaly.action) == ("not_finite", "rollback")


def test_a_spike_is_found_by_robust_statistics():
    assert judge_loss(GUARDS, FLAT, 2.2) is None
    anomaly = judge_loss(GUARDS, FLAT, 3.0)
    assert (anomaly.kind, anomaly.action) == ("spike", "skip")
    assert 2.0 < anomaly.limit < 3.0
    one_outlier = [*FLAT[:-1], 1000.0]  # a mean and a standard deviation would be lost
    assert judge_loss(GUARDS, one_outlier, 3.0).kind == "spike"
    with_nan = [*FLAT, math.nan, math.nan]
    assert judge_loss(GUARDS, with_nan, 3.0).kind == "spike"
    assert judge_loss(GUARDS, with_nan, 2.01) is None


def test_no_spike_without_history_and_none_on_the_way_down():
    assert spike_limit(FLAT[:19], 10) is None
    falling = [10 * 0.95**i for i in range(40)]
    for i in range(20, 40):
        assert judge_loss(GUARDS, falling[:i], falling[i]) is None


def test_the_window_forgets():
    history = []
    for loss in FLAT:
        history = recent_losses(history, loss, 5)
    assert history == FLAT[-5:]


def test_gradients():
    assert judge_gradient(GUARDS, 1.0, applied=True) is None
    assert judge_gradient(GUARDS, None, applied=True) is None
    assert judge_gradient(GUARDS, 0.0, applied=True).kind == "zero_gradient"
    for norm in (math.nan, math.inf):
        assert judge_gradient(GUARDS, norm, applied=True).kind == "not_finite"
    assert judge_gradient(GUARDS, None, applied=False).kind == "not_finite"


FAULTS = ("nan_loss", "nan_gradient")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_step_that_is_nan_leaves_no_trace(tmp_path, processes):
    tasks = {
        (zero, policy, fault): {
            "zero": zero,
            "guards": {"not_finite": policy},
            "fault": [3, fault],
            "minutes": 1e-9,
            "folder": tmp_path / f"{zero}-{policy}-{fault}",
        }
        for zero in (0, 1, 2, 3)
        for policy in ("skip", "rollback")
        for fault in FAULTS
    }
    whole = {
        zero: {"zero": zero, "leave_out": 3, "folder": tmp_path / f"{zero}-reference"}
        for zero in (0, 1, 2, 3)
    }
    results = run([*tasks.values(), *whole.values()], processes)
    references = dict(zip(whole, results[len(tasks) :], strict=True))
    for (zero, policy, fault), result in zip(tasks, results, strict=False):
        name = f"ZeRO {zero}, {policy}, {fault}"
        assert [t["kind"] for t in result["troubles"]] == ["not_finite"], name
        assert [t["action"] for t in result["troubles"]] == [policy], name
        if policy == "rollback":  # as if that batch had never been in the text
            assert result["hash"] == references[zero]["hash"], name
        else:
            applied = [record[5] for record in result["records"]]
            assert applied == [True, True, True, False, True, True], name
            assert all(math.isfinite(record[3]) for record in result["records"][4:]), name


def test_stop_ends_the_stage_without_saving_what_came_of_it(tmp_path):
    tasks = [
        {"zero": zero, "fault": [3, fault], "minutes": 1e-9, "folder": tmp_path / f"{zero}{fault}"}
        for zero in (0, 1, 3)
        for fault in FAULTS
    ]
    for task, result in zip(tasks, run(tasks), strict=True):
        assert re.search(r"\bstep 4: .*\bNaN\b", result["error"])
        newest = sorted(Path(task["folder"]).glob("step-*"))[-1].name
        assert newest == "step-00000003"


def test_a_last_update_that_breaks_the_model_ends_the_stage(tmp_path):
    broken = {"precision": "fp16", "rate": 1e10, "steps": 1}
    kinds = [{**broken, "zero": zero} for zero in (0, 1, 3)]
    results = run([{**k, "folder": tmp_path / str(n)} for n, k in enumerate(kinds)])
    for kind, found in zip(kinds, results, strict=True):
        assert re.search(r"\blearning_rate\b.*1e\+", found.get("error", "")), (kind, found)


def test_anomalies_have_an_end(tmp_path):
    task = {"zero": 1, "fault": [2, "nan_loss", 99], "folder": tmp_path / "a"}
    task["guards"] = {"not_finite": "skip", "most_skips": 2}
    (result,) = run([task])
    assert "guards.most_skips=2" in result["error"] or "step 5" in result["error"]
    assert [t["action"] for t in result["troubles"]] == ["skip", "skip", "stop"]


def test_a_resumed_run_judges_as_the_uninterrupted_one(tmp_path):
    shared = {"zero": 2, "guards": {"not_finite": "skip"}, "fault": [1, "nan_gradient"]}
    whole, cut = {**shared, "folder": tmp_path / "w"}, {**shared, "folder": tmp_path / "c"}
    first, nothing = run([whole, {**cut, "stop_at": 4}])
    assert nothing is None
    (second,) = run([{**cut, "fault": None}])
    assert second["hash"] == first["hash"]
    assert second["records"] == first["records"][3:]
