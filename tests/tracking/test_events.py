import json

import numpy as np
import pytest

from hpc_llm.tracking import EventLog, read_events


def train(log, stage, step, loss=1.0):
    axes = {"step": step, "tokens": 100 * step}
    log.append("train", stage=stage, axes=axes, metrics={"train/loss": loss})


def steps(path, stage):
    return [e["step"] for e in read_events(path) if e["event"] == "train" and e["stage"] == stage]


def test_a_resume_leaves_no_dropped_and_no_doubled_step(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    train(log, "full", 200)
    for step in range(10, 170, 10):
        train(log, "lora", step, loss=1.0)
    log.append("evaluate", stage="lora", axes={"step": 100}, metrics={"bpb": 1})
    log.append("evaluate", stage="lora", axes={"step": 150}, metrics={"bpb": 2})
    log.resume("lora", 110)
    for step in range(120, 210, 10):
        train(log, "lora", step, loss=2.0)

    assert steps(log.path, "lora") == list(range(10, 210, 10))
    assert steps(log.path, "full") == [200]
    losses = {e["step"]: e["metrics"].get("train/loss") for e in read_events(log.path)}
    assert losses[110] == 1.0
    assert losses[120] == 2.0
    assert [e["step"] for e in read_events(log.path) if e["event"] == "evaluate"] == [100]


def test_a_resume_at_zero_starts_the_stage_over(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    train(log, "lora", 10)
    log.append("stage", stage="lora", axes={"step": 10}, metrics={})
    log.resume("lora", 0)
    train(log, "lora", 5)
    assert [(e["event"], e["step"]) for e in read_events(log.path)] == [("stage", 10), ("train", 5)]


def test_a_stage_begun_again_without_a_word_takes_the_place_of_its_first_try(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    train(log, "full", 50)
    for step, loss in ((10, 1.0), (20, 1.0), (30, 1.0), (10, 3.0), (20, 3.0)):
        train(log, "lora", step, loss)
    history = [(e["stage"], e["step"], e["metrics"]["train/loss"]) for e in read_events(log.path)]
    assert history == [("full", 50, 1.0), ("lora", 10, 3.0), ("lora", 20, 3.0)]


def test_a_torn_line_costs_no_good_one(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    train(log, "lora", 10)
    with log.path.open("a") as handle:
        handle.write('{"event": "train", "stage": "lora", "st')
    train(log, "lora", 20)
    assert steps(log.path, "lora") == [10, 20]


def test_no_file_is_no_history(tmp_path):
    assert read_events(tmp_path / "events.jsonl") == []


def test_what_json_cannot_hold_becomes_null_and_numpy_becomes_plain(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    metrics = {"a": float("nan"), "b": float("-inf"), "c": np.float32(0.5), "d": np.int64(3)}
    log.append("evaluate", stage="lora", axes={"step": np.int64(7)}, metrics=metrics)
    log.append("evaluate", stage="lora", axes={}, metrics={"list": [np.float64("nan"), 1]})

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    first, second = (
        json.loads(line, parse_constant=refuse) for line in log.path.read_text().splitlines()
    )
    assert first["metrics"] == {"a": None, "b": None, "c": 0.5, "d": 3}
    assert first["step"] == 7
    assert second["metrics"] == {"list": [None, 1]}


def test_unknown_events_and_axes_are_refused(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    with pytest.raises(ValueError, match="train, evaluate"):
        log.append("trian", stage="lora", axes={}, metrics={})
    with pytest.raises(ValueError, match="seconds"):
        log.append("train", stage="lora", axes={"seconds": 1}, metrics={})
    assert not log.path.exists()
