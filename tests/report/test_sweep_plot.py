"""The plot and the table of a sweep, from made-up rows."""

import re

import pytest

from hpc_llm.report.sweep import TrialResults, TrialRow, best_of, short_names
from hpc_llm.report.sweep_plot import draw_sweep
from hpc_llm.rundir import Trial


def row(number, values, value, outcome="done", **named):
    named = {"name": "bpb/target", "unit": "bits per byte", "better": "lower", **named}
    name = named.pop("name")
    measure = {"value": value, "n": 9, **named}
    measures = {}
    if value is not None:
        measures[name] = measure | {"low": value - 0.1, "high": value + 0.1}
    return TrialRow(
        trial=Trial(number=number, values=values, overrides=[], stages={}),
        state=outcome,
        outcome=outcome,
        results=TrialResults(measures=measures, phi={}),
    )


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_short_names_are_as_long_as_needed():
    assert short_names(["stages.lora.alpha", "stages.lora.rank"]) == ["alpha", "rank"]
    keys = ["stages.lora.steps", "stages.embeddings.steps", "seed"]
    assert short_names(keys) == ["lora.steps", "embeddings.steps", "seed"]


def test_only_a_finished_trial_is_the_best():
    rows = [row(0, {}, 2.0), row(1, {}, 1.0, "failed"), row(2, {}, 1.5, "open"), row(3, {}, None)]
    assert best_of(rows).trial.number == 0
    assert best_of(rows[1:]) is None


def test_a_measure_of_which_more_is_better_ranks_trials_by_the_most():
    named = {"name": "score/x", "unit": "share", "better": "higher"}
    keys = ["a", "b", "c"]
    rows = [
        row(number, dict.fromkeys(keys, "1"), value, **named)
        for number, value in enumerate((0.2, 0.7, 0.4))
    ]
    assert best_of(rows).trial.number == 1
    found = texts(draw_sweep("scores", keys, rows))
    assert [text[0] for text in found if re.match(r"\d: a=", text)] == ["1", "2", "0"]
    assert "score/x, share (higher is better)" in found


@pytest.mark.parametrize(
    ("values", "scale"), [(("8", "16"), "linear"), (("1e-4", "0.01"), "log"), (("a", "b"), "words")]
)
def test_one_swept_key_is_an_axis_with_its_values(values, scale):
    rows = [row(number, {"x.y": value}, 2.0 + number) for number, value in enumerate(values)]
    svg = draw_sweep("one", ["x.y"], rows)
    assert {"y", *values} <= set(texts(svg)), scale
    assert "failed" not in texts(svg)
    crossed = draw_sweep("one", ["x.y"], [rows[0], row(1, {"x.y": values[1]}, None, "failed")])
    assert "failed" in texts(crossed)


def test_many_swept_keys_are_bars_with_the_best_on_top():
    keys = ["a", "b", "c"]
    bits = (2.0, 1.2345, None)
    rows = [
        row(n, dict.fromkeys(keys, str(n)), value, "failed" if value is None else "done")
        for n, value in enumerate(bits)
    ]
    found = texts(draw_sweep("three", keys, rows))
    labels = [text for text in found if re.match(r"\d: a=", text)]
    assert labels == ["1: a=1 b=1 c=1", "0: a=0 b=0 c=0", "2: a=2 b=2 c=2"]
    assert {"1.234", "2.000", "failed"} <= {text.strip() for text in found}


def test_without_measures_nothing_is_drawn():
    assert draw_sweep("none", ["a"], [row(0, {"a": "1"}, None, "open")]) is None
