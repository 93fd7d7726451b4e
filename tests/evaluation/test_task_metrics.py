"""Metrics of tasks against values by hand, and their intervals."""

import numpy as np
import pytest

from hpc_llm.evaluation.measures import Evaluated, Measure, task_measures
from hpc_llm.evaluation.tasks.metrics import load_metric, metric_names
from hpc_llm.evaluation.tasks.questions import Question, Scored
from hpc_llm.evaluation.tasks.results import group_means, item_line, measure, outcomes, weights


def scored(scores, sizes=(1, 1, 1), gold=0, neutral=None):
    return Scored(scores=scores, neutral=neutral, bytes=sizes[: len(scores)], gold=gold)


@pytest.mark.parametrize(
    ("metric", "given", "prediction", "expected"),
    [
        ("acc", scored([-3.0, -2.0, -9.0], gold=1), 1, 1.0),
        ("acc", scored([-3.0, -2.0, -9.0], gold=0), 1, 0.0),
        ("acc", scored([-2.0, -2.0], gold=1), 0, 0.5),
        ("acc", scored([-2.0, -2.0, -9.0], gold=2), 0, 0.0),
        # -0.5, -0.4 and -0.9 nats per byte
        ("acc_bytes", scored([-3.0, -4.0, -9.0], (6, 10, 10), gold=1), 1, 1.0),
        ("acc_bytes", scored([-3.0, -4.0, -9.0], (6, 10, 10), gold=0), 1, 0.0),
        # rises of 1 and 3 nats over the neutral prompt
        ("acc_pmi", scored([-3.0, -4.0], gold=1, neutral=[-4.0, -7.0]), 1, 1.0),
    ],
)
def test_outcomes_by_hand(metric, given, prediction, expected):
    found = load_metric(metric)(given)
    assert (found.prediction, found.value) == (prediction, expected)


OF_TEXTS = ("bpb", "exact", "f1_bag")


@pytest.mark.parametrize("metric", [name for name in metric_names() if name not in OF_TEXTS])
def test_a_model_without_preferences_is_at_chance_in_every_metric(metric):
    for gold in range(3):
        given = scored([-2.0] * 3, gold=gold, neutral=[-1.0] * 3)
        assert load_metric(metric)(given).value == pytest.approx(1 / 3)


def test_the_script_of_a_choice_changes_only_its_bytes():
    """Cyrillic letters have two bytes: with equal scores per byte it is a tie."""
    question = Question(id="a:1", prompt="?", choices=("abcd", "абвг"), gold=0)
    line = item_line(question, [-4.0, -8.0], False, "acc_bytes")
    assert line["bytes"] == [4, 8]
    assert outcomes("acc_bytes", [line])[0].value == 0.5
    assert outcomes("acc", [line])[0].value == 1.0


def test_means_are_over_groups_of_groups():
    groups = [("x", "a"), ("x", "a"), ("x", "b"), ("y", "c")]
    assert weights(groups).tolist() == [1 / 8, 1 / 8, 1 / 4, 1 / 2]
    assert weights([()] * 4).tolist() == [1 / 4] * 4
    found = measure([1.0, 0.0, 1.0, 0.0], groups, 0.5, 0)
    assert (found.value, found.n) == ((((1 + 0) / 2 + 1) / 2 + 0) / 2, 4)
    means = group_means([1.0, 0.0, 1.0, 0.0], groups)
    assert means["x"] == {"value": pytest.approx(2 / 3, abs=1e-9), "n": 3}
    assert means["x/a"] == {"value": 0.5, "n": 2}
    assert list(means) == ["x", "x/a", "x/b", "y", "y/c"]


def test_the_interval_is_that_of_a_share_and_strata_narrow_it():
    values = [1.0] * 60 + [0.0] * 40
    plain = measure(values, [()] * 100, 0.5, 7)
    error = np.sqrt(0.6 * 0.4 / 100)
    assert plain.low == pytest.approx(0.6 - 1.96 * error, abs=0.02)
    assert plain.high == pytest.approx(0.6 + 1.96 * error, abs=0.02)
    assert plain == measure(values, [()] * 100, 0.5, 7)
    # each group is all right or all wrong: only which items are drawn differs, never the groups
    grouped = measure(values, [("a",)] * 60 + [("b",)] * 40, 0.5, 7)
    assert (grouped.value, grouped.low, grouped.high) == (0.5, 0.5, 0.5)


def test_groups_of_one_item_still_vary():
    values = [1.0, 0.0] * 20
    found = measure(values, [(str(i),) for i in range(40)], 0.5, 7)
    assert found.low < 0.5 < found.high


@pytest.mark.parametrize(
    ("low", "high", "chance", "expected"),
    [
        (0.4, 0.6, 0.5, True),
        (0.5, 0.6, 0.5, True),
        (0.51, 0.6, 0.5, False),
        (0.3, 0.49, 0.5, False),  # below chance is information, too
        (None, None, 0.5, True),
        (0.4, 0.6, None, False),
    ],
)
def test_an_interval_that_contains_chance_is_at_chance(low, high, chance, expected):
    found = Measure(
        value=0.5, low=low, high=high, n=9, unit="accuracy", better="higher", chance=chance
    )
    assert found.at_chance is expected
    assert found.as_dict().get("chance") == chance
    assert ("chance" in found.as_dict()) == (chance is not None)


def test_items_that_all_agree_have_the_bound_of_clopper_and_pearson():
    right, wrong = (measure([value] * 8, [()] * 8, 0.5, 7) for value in (1.0, 0.0))
    assert (right.value, right.high, wrong.value, wrong.low) == (1, 1, 0, 0)
    assert right.low**8 == pytest.approx(0.025)  # eight successes have this chance
    assert wrong.high == pytest.approx(1 - right.low)
    assert not right.at_chance
    assert measure([1.0] * 3, [()] * 3, 0.5, 7).at_chance


def test_a_score_that_is_nan_makes_the_metric_nan_and_not_a_guess():
    question = Question(id="a:1", prompt="?", choices=("a", "b"), gold=0)
    line = item_line(question, [-1.0, np.nan], False, "acc")
    assert (line["scores"], line["prediction"]) == ([-1.0, None], None)
    (outcome,) = outcomes("acc", [line])
    found = measure([outcome.value, 1.0], [(), ()], 0.5, 7)
    assert np.isnan(found.value)
    assert (found.low, found.high, found.at_chance) == (None, None, True)


def test_one_item_has_no_interval():
    found = measure([1.0], [()], 0.5, 7)
    assert (found.value, found.low, found.high, found.at_chance) == (1.0, None, None, True)


def test_the_first_metric_of_each_task_is_a_measure():
    parus = measure([1.0, 0.0], [(), ()], 0.5, 0)
    given = Evaluated(
        model=None, tokenizer=None, texts={}, losses={}, base=None, seed=0, tasks={"parus": parus}
    )
    assert task_measures(given) == {"task/parus": parus}
