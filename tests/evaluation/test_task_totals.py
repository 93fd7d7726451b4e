"""Metrics that are no means of questions, against scikit-learn or by hand."""

import numpy as np
import pytest
from errors import user_error

from hpc_llm.evaluation.measures import Measure
from hpc_llm.evaluation.tasks.metrics import load_metric, load_total
from hpc_llm.evaluation.tasks.questions import Question, Scored
from hpc_llm.evaluation.tasks.results import estimate, item_line, mean_of
from hpc_llm.evaluation.tasks.suites import suite_measures
from hpc_llm.evaluation.tasks.texts import bag_f1, exact_match, normalise


def lines(gold, predicted, classes, units=None):
    """Return lines of `TASK.jsonl` with these classes."""
    found = []
    for index, (right, chosen) in enumerate(zip(gold, predicted, strict=True)):
        unit = None if units is None else str(units[index])
        question = Question(
            id=str(index), prompt="", choices=("a",) * classes, gold=int(right), unit=unit
        )
        nats = [-1.0 if choice == chosen else -2.0 for choice in range(classes)]
        found.append(item_line(question, nats, False, "acc"))
    return found


def value(metric, *given):
    return estimate(metric, lines(*given), 1).measure.value


@pytest.mark.parametrize("classes", [2, 3])
def test_class_metrics_equal_scikit_learn_on_random_labels(classes):
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(classes)
    gold, predicted = random.integers(classes, size=(2, 200))
    predicted = np.where(random.random(200) < 0.3, gold, predicted)
    given = (gold, predicted, classes)
    assert value("mcc", *given) == pytest.approx(metrics.matthews_corrcoef(gold, predicted))
    macro = metrics.f1_score(gold, predicted, average="macro")
    assert value("f1_macro", *given) == pytest.approx(macro)
    if classes == 2:
        assert value("f1", *given) == pytest.approx(metrics.f1_score(gold, predicted))


def test_class_metrics_by_hand():
    given = ([0, 0, 0, 1], [0, 0, 1, 1], 2)
    # confusion [[2, 1], [0, 1]]: (4 * 3 - (3 * 2 + 1 * 2)) / sqrt((16 - 8) (16 - 10))
    assert value("mcc", *given) == pytest.approx(4 / np.sqrt(48))
    assert value("f1", *given) == pytest.approx(2 / 3)
    assert value("f1_macro", *given) == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert value("position_gap", *given) == pytest.approx(2 / 3 - 1)
    always = ([0, 1, 1], [1, 1, 1], 2)
    assert value("mcc", *always) == 0
    assert value("f1_macro", *always) == pytest.approx(0.4)


def test_chance_is_that_of_a_guess():
    random = np.random.default_rng(0)
    gold = (random.random(60_000) < 0.2).astype(int)
    guess = random.integers(2, size=60_000)
    confusion = np.bincount(2 * gold + guess, minlength=4) / 60_000
    few = [0, 0, 0, 0, 1]
    for metric in ("mcc", "f1", "f1_macro", "position_gap"):
        found = estimate(metric, lines(few, few, 2), 1).measure.chance
        assert found == pytest.approx(float(load_total(metric).of(confusion)), abs=0.02)


def test_intervals_of_class_metrics_cover_and_hold_chance_for_a_guess():
    random = np.random.default_rng(5)
    gold, guess = random.integers(2, size=(2, 300))
    found = estimate("mcc", lines(gold, guess, 2), 1).measure
    assert found.at_chance
    error = 1 / np.sqrt(300)  # of a correlation of 0
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert not estimate("mcc", lines(gold, gold, 2), 1).measure.at_chance


def test_units_are_right_if_all_their_questions_are():
    units = [0, 0, 1, 1, 2, 2]
    given = lines([0, 1, 0, 1, 0, 1], [0, 1, 0, 0, 0, 0], 2, units)
    strict = estimate("strict", given, 1).measure
    assert (strict.value, strict.n, strict.chance) == (pytest.approx(1 / 3), 3, 0.5)
    every = estimate("all_right", given, 1).measure
    assert (every.value, every.chance) == (pytest.approx(1 / 3), 0.25)
    assert estimate("acc", given, 1).measure.value == pytest.approx(2 / 3)
    assert estimate("position_gap", given, 1).measure.value == pytest.approx(2 / 3)


def test_the_mean_of_metrics_is_paired():
    given = lines([0, 1] * 20, [0, 1, 1, 1] * 10, 2)
    ones = [estimate(name, given, 1) for name in ("acc", "f1_macro")]
    both = mean_of(ones)
    assert both.measure.value == pytest.approx(np.mean([one.measure.value for one in ones]))
    same = mean_of([ones[0], ones[0]]).measure
    assert (same.low, same.high) == (ones[0].measure.low, ones[0].measure.high)


def test_answers_are_compared_as_squad_does():
    assert normalise("  «Осло»,  столица! ") == "осло столица"
    assert exact_match("308.", "308") == 1
    assert exact_match("в 308", "308") == 0
    assert bag_f1("в городе Осло", "Осло") == pytest.approx(2 * (1 / 3) / (1 + 1 / 3))
    assert bag_f1("кот", "пёс") == 0
    assert bag_f1("кот кот", "кот") == pytest.approx(2 / 3)
    given = Scored(
        scores=[-1.0], neutral=None, bytes=[4], gold=0, answer="кот Том", answers=["пёс", "Том"]
    )
    assert load_metric("f1_bag")(given).value == pytest.approx(2 / 3)
    assert load_metric("exact")(given).value == 0


def test_bits_per_byte_of_texts_are_a_ratio_of_sums():
    questions = [Question(id=t, prompt="", choices=(t,), gold=0) for t in ("ab", "abcdef")]
    given = [
        item_line(q, [-n * np.log(2)], False, "bpb")
        for q, n in zip(questions, (6, 10), strict=True)
    ]
    found = estimate("bpb", given, 1).measure
    assert (found.value, found.chance, found.better) == (pytest.approx(16 / 8), None, "lower")


def test_a_score_that_is_nan_makes_every_metric_nan():
    given = lines([0, 1], [0, 1], 2)
    given[0]["scores"] = [-1.0, None]
    for metric in ("mcc", "f1_macro", "acc"):
        found = estimate(metric, given, 1).measure
        assert np.isnan(found.value)
        assert found.low is None


def test_metrics_that_do_not_fit_a_question_are_refused():
    given = Scored(scores=[-1.0, -2.0], neutral=None, bytes=[1, 1], gold=-1, answers=["x"])
    with user_error("metric", value="mcc"):
        load_metric("mcc")(given)
    with user_error("metric", value="exact"):
        load_metric("exact")(Scored(scores=[-1.0, -2.0], neutral=None, bytes=[1, 1], gold=0))


def test_a_suite_is_the_mean_of_its_tasks():
    ones = {
        name: Measure(value=v, low=v - 0.3, high=v + 0.4, n=9, unit="x", better="higher", chance=c)
        for name, v, c in (("a", 0.2, 0.5), ("b", 0.6, 0.0), ("c", 0.9, 0.5))
    }
    found = suite_measures(ones, {"a": "s", "b": "s", "c": None})
    assert list(found) == ["s"]
    assert (found["s"].value, found["s"].n, found["s"].chance) == (pytest.approx(0.4), 2, 0.25)
    assert found["s"].low == pytest.approx(0.4 - 0.3 / np.sqrt(2))
    assert suite_measures(ones, {"a": "s", "b": None, "c": None}) == {}
