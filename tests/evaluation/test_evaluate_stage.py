"""The stage writes every measure that is listed, the losses behind them, and one event."""

import math
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from hpc_llm.evaluation import Measure
from hpc_llm.evaluation.bits_per_byte import Bpb
from hpc_llm.evaluation.measures import Evaluated, load_losses
from hpc_llm.pipeline.table import outline
from hpc_llm.rundir import RunFolder, read_json
from hpc_llm.stages import evaluate
from hpc_llm.tracking import EventLog, read_events


def losses(nats):
    nll, counts = np.array(nats), np.array([8, 8])
    value = float(nll.sum() / (math.log(2) * 16))
    return Bpb(
        value=value, low=value - 0.1, high=value + 0.1, bytes=16, nll=nll, byte_counts=counts
    )


@pytest.fixture
def context(tmp_path, monkeypatch):
    """A run whose models are made up: the base, and one that lost 1 nat on each source text."""
    base = {"target": losses([20.0, 30.0]), "source": losses([10.0, 12.0])}
    later = {"target": losses([9.0, 9.0]), "source": losses([11.0, 13.0])}

    @contextmanager
    def score(context, point):
        yield Evaluated(
            model=None,
            tokenizer=None,
            texts={},
            losses=base if point == "base" else later,
            base=None if point == "base" else load_losses(tmp_path / "evaluate/base.npz"),
            seed=0,
        )

    monkeypatch.setattr(evaluate, "evaluated_at", score)
    return SimpleNamespace(folder=RunFolder(tmp_path), events=EventLog(tmp_path / "events.jsonl"))


def longest(evaluated):
    """A measure of a test: two lines of code and one entry in the stage."""
    most = float(evaluated.losses["target"].nll.max())
    return {"longest/target": Measure(value=most, n=2, unit="nats", better="lower")}


def test_one_function_and_one_entry_add_a_measure(context, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "MEASURES", (*evaluate.MEASURES, longest))
    for point in ("base", "lora"):
        result = evaluate.run(context, f"evaluate/{point}")
    assert read_json(tmp_path / "evaluate/lora.json") == result
    measures = result["measures"]
    names = ["bpb/target", "bpb/source", "forgetting/source", "longest/target"]
    assert list(measures) == names
    assert measures["longest/target"] == {
        **{"value": 9.0, "low": None, "high": None, "n": 2},
        **{"unit": "nats", "better": "lower"},
    }
    forgotten = measures["forgetting/source"]
    nat = 2 / (16 * math.log(2))  # 1 nat on each of two texts of 8 bytes
    ends = [forgotten[key] for key in ("value", "low", "high")]
    assert ends == pytest.approx([nat] * 3)
    assert list(read_json(tmp_path / "evaluate/base.json")["measures"]) == [*names[:2], names[3]]
    assert result["target"]["value"] == measures["bpb/target"]["value"]
    assert result["line"].startswith(f"bpb/target {measures['bpb/target']['value']:.4f} [")
    last = read_events(context.events.path)[-1]
    assert (last["event"], last["stage"]) == ("evaluate", "lora")
    assert last["metrics"]["longest/target"] == 9.0
    assert last["metrics"]["forgetting/source_low"] == forgotten["low"]
    assert "longest/target_low" not in last["metrics"]


def test_a_value_that_is_nan_is_null(context, tmp_path, monkeypatch):
    broken = Measure(value=math.nan, n=2, unit="nats", better="lower")
    monkeypatch.setattr(evaluate, "MEASURES", (lambda evaluated: {"broken/x": broken},))
    evaluate.run(context, "evaluate/base")
    assert read_json(tmp_path / "evaluate/base.json")["measures"]["broken/x"]["value"] is None


def test_an_evaluation_without_losses_is_not_complete_and_points_need_the_base(default_config):
    stages = {stage.name: stage for stage in outline(default_config)}
    for name in ("evaluate/base", "evaluate/lora", "evaluate/corrected"):
        assert set(stages[name].outputs) == {f"{name}.json", f"{name}.npz"}
        assert ("evaluate/base" in stages[name].needs) == (name != "evaluate/base")
