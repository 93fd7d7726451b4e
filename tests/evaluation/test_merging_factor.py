"""The choice of phi on losses whose best factor is known beforehand."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from errors import user_error

from hpc_llm.evaluation.merging_factor import choose_phi
from hpc_llm.settings import CorrectSettings

GRID = [0.25, 0.33, 0.5, 0.6, 0.667, 0.75, 0.8, 0.9, 1.0, 1.25, 1.5]
DOCUMENTS = 100
LN2 = math.log(2)


def settings(rule="weighted", beta=0.0, grid=GRID, tolerance=0.02, samples=400):
    return CorrectSettings(
        rule=rule, grid=grid, beta=beta, tolerance=tolerance, bootstrap_samples=samples
    )


def choose(target, source, *others):
    """`choose_phi` for functions of one factor."""

    def of_each(losses):
        return losses and (lambda phis: [losses(phi) for phi in phis])

    return choose_phi(of_each(target), of_each(source), *others)


class Valley:
    """Documents of 100 bytes whose BPB is level_i + curvature * (phi - optimum_i)^2."""

    bytes = np.full(DOCUMENTS, 100)

    def __init__(self, optimum, spread=0.0, curvature=0.5):
        generator = np.random.default_rng(5)
        self.levels = 1.5 + 0.4 * generator.standard_normal(DOCUMENTS)
        noise = generator.standard_normal(DOCUMENTS)
        self.optima = optimum + spread * (noise - noise.mean())
        self.curvature = curvature
        self.calls = Counter()

    def __call__(self, phi):
        self.calls[phi] += 1
        return self.bpb(phi) * LN2 * self.bytes

    def bpb(self, phi):
        return self.levels + self.curvature * (phi - self.optima) ** 2


@pytest.mark.parametrize("optimum", [0.28, 0.55, 0.7, 0.83, 1.13, 1.4])
def test_golden_section_finds_the_minimum(optimum):
    valley = Valley(optimum)
    choice = choose(valley, None, (valley.bytes, valley.bytes), settings(), 0)
    assert choice.best == pytest.approx(optimum, abs=0.02)
    assert choice.low <= choice.value <= choice.high
    assert not choice.at_edge
    assert set(valley.calls.values()) == {1}
    assert len(valley.calls) <= len(GRID) + 9


def test_levels_of_documents_cancel_in_pairs():
    """Documents differ by 0.4 bits, the factors by a hundredth of that, and yet phi is certain."""
    valley = Valley(0.7)
    choice = choose(valley, None, (valley.bytes, valley.bytes), settings(), 0)
    assert choice.low == choice.value == choice.best == choice.high
    point = next(p for p in choice.curve if p["phi"] == choice.best)
    assert point["target_high"] - point["target_low"] > 0.1


def test_forgetting_moves_the_factor_down():
    """With J = 0.5 (phi - 1)^2 + beta * 0.4 phi^2 the minimum lies at 1 / (1 + 0.8 beta)."""
    target, source = Valley(1.0), Valley(0.0, curvature=0.4)
    sizes = (target.bytes, source.bytes)
    choice = choose(target, source, sizes, settings(beta=0.5), 0, source(0.0))
    assert choice.best == pytest.approx(1 / 1.4, abs=0.02)
    assert choice.low == choice.high == choice.best
    assert choice.source_base_bpb == pytest.approx(source.levels.mean())
    for point in choice.curve:
        assert point["source_bpb"] == pytest.approx(source.bpb(point["phi"]).mean())
        assert point["objective"] == pytest.approx(
            point["target_bpb"] + 0.5 * (point["source_bpb"] - choice.source_base_bpb)
        )


def test_gains_on_source_text_earn_nothing():
    """Source text gets better up to phi 1.4: the hinge leaves the target's own minimum."""
    target, source = Valley(0.7), Valley(1.4)
    sizes = (target.bytes, source.bytes)
    choice = choose(target, source, sizes, settings(beta=10.0), 0, source(0.0))
    assert choice.best == pytest.approx(0.7, abs=0.02)
    assert choice.low == choice.high == choice.best


def test_smallest_factor_within_one_standard_error():
    valley = Valley(0.8, spread=0.9)
    choice = choose(valley, None, (valley.bytes, valley.bytes), settings(samples=4000), 0)
    best = valley.bpb(choice.best)
    within = []
    for point in choice.curve:
        excess = valley.bpb(point["phi"]) - best  # equal sizes: the mean has the textbook error
        if excess.mean() <= excess.std() / math.sqrt(DOCUMENTS):
            within.append(point["phi"])
    assert choice.value == min(within) < choice.best
    assert choice.low <= choice.best <= choice.high


def test_no_harm_spends_only_what_costs_the_target_nothing():
    """Of the factors within one standard error on target text, the best on source text."""
    target, source = Valley(1.0, spread=0.9), Valley(0.4)
    sizes = (target.bytes, source.bytes)
    choice = choose(target, source, sizes, settings("no_harm", samples=4000), 0)
    best, equal = target.bpb(choice.best), []
    for point in choice.curve:
        excess = target.bpb(point["phi"]) - best
        if excess.mean() <= excess.std() / math.sqrt(DOCUMENTS):
            equal.append(point["phi"])
    assert choice.value == min(equal, key=lambda phi: source.bpb(phi).mean()) < choice.best
    far = choose(target, Valley(1.4), sizes, settings("no_harm", samples=4000), 0)
    assert far.value == max(equal) > far.best
    assert choice.source_base_bpb is None


def test_no_harm_keeps_the_target_s_own_best_whatever_the_source_would_save():
    target, source = Valley(1.0), Valley(0.0, curvature=50.0)
    choice = choose(target, source, (target.bytes, source.bytes), settings("no_harm"), 0)
    assert choice.value == choice.best == pytest.approx(1.0, abs=0.02)


def test_source_text_is_scored_where_it_can_decide_and_at_the_ends():
    target, source = Valley(0.8, spread=0.9), Valley(0.4)
    sizes = (target.bytes, source.bytes)
    choice = choose(target, source, sizes, settings("no_harm", samples=4000), 0)
    best = target.bpb(choice.best)
    excess = {phi: target.bpb(phi) - best for phi in target.calls}
    equal = {p for p, x in excess.items() if x.mean() <= x.std() / math.sqrt(DOCUMENTS)}
    assert len(equal) > 1
    assert source.calls.keys() == equal | {0.25, 1.0, 1.5}
    assert set(source.calls.values()) == {1}
    for point in choice.curve:
        assert (point["source_bpb"] is not None) == (point["phi"] in source.calls)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_no_harm_passes_over_a_factor_that_breaks_the_source(broken):
    target, source = Valley(0.8, spread=0.9), Valley(1.4)
    whole = choose(target, source, (target.bytes, source.bytes), settings("no_harm"), 0)

    def breaking(phi):
        return source(phi) if phi < whole.value else np.full(DOCUMENTS, broken)

    choice = choose(target, breaking, (target.bytes, source.bytes), settings("no_harm"), 0)
    assert whole.best <= choice.value < whole.value
    json.dumps(choice.to_json(), allow_nan=False)


def test_without_source_text_no_harm_chooses_the_smallest_factor():
    target = Valley(0.8, spread=0.9)
    sizes = (target.bytes, target.bytes)
    rules = [
        choose(target, None, sizes, settings(rule), 0).value for rule in ("no_harm", "weighted")
    ]
    assert rules[0] == rules[1] < 0.8


def test_interval_is_not_widened_to_the_chosen_factor():
    """0.6 is always a little better than 0.5, so 0.5 never wins a resample; yet it is chosen."""
    noise = np.random.default_rng(0).standard_normal(DOCUMENTS)
    noise += 0.3 * noise.std() / math.sqrt(DOCUMENTS) - noise.mean()  # 0.3 standard errors worse
    table = {0.5: 100 + noise + 0.001, 0.6: 100 + noise, 1.0: np.full(DOCUMENTS, 100.0)}
    sizes = np.full(DOCUMENTS, 100)
    chosen = settings(grid=list(table), tolerance=1.0)
    choice = choose(table.__getitem__, None, (sizes, sizes), chosen, 0)
    assert (choice.value, choice.best) == (0.5, 1.0)
    assert (choice.low, choice.high) == (0.6, 1.0)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_few_documents_give_no_interval(count):
    """Without an interval every factor of the grid may be the best one."""
    valley = Valley(0.7)
    sizes = np.where(np.arange(DOCUMENTS) < count, 100, 0)
    choice = choose(lambda phi: valley(phi) * sizes / 100, None, (sizes, sizes), settings(), 0)
    assert choice.best == pytest.approx(0.7, abs=0.02)
    assert choice.has_interval == choice.to_json()["has_interval"] == (count == 5)
    if not choice.has_interval:
        assert (choice.low, choice.high) == (GRID[0], GRID[-1])


def test_interval_covers_what_the_mean_optimum_may_be():
    """The minimum of the mean lies at the mean optimum, which has the textbook interval."""
    valley = Valley(0.8, spread=0.5)
    grid = [round(0.3 + 0.01 * step, 2) for step in range(101)]
    chosen = settings(grid=grid, tolerance=0.01, samples=2000)
    choice = choose(valley, None, (valley.bytes, valley.bytes), chosen, 0)
    half = 1.96 * valley.optima.std() / math.sqrt(DOCUMENTS)
    assert choice.high == pytest.approx(0.8 + half, abs=0.03)
    assert choice.low == pytest.approx(0.8 - half, abs=0.03)


@pytest.mark.parametrize(
    ("optimum", "spread", "end"), [(2.5, 0.0, 1.5), (-1.0, 0.0, 0.25), (1.55, 0.9, 1.5)]
)
def test_best_at_the_end_of_the_grid_is_reported(optimum, spread, end):
    valley = Valley(optimum, spread)
    choice = choose(valley, None, (valley.bytes, valley.bytes), settings(), 0)
    assert choice.best == end
    assert (choice.value == end) == (spread == 0)
    assert choice.at_edge


def test_choice_at_the_end_of_the_grid_is_reported():
    valley = Valley(0.8, spread=0.9)
    grid = [0.75, 0.8, 1.0]
    choice = choose(valley, None, (valley.bytes, valley.bytes), settings(grid=grid), 0)
    assert choice.value == 0.75 < choice.best < 1.0
    assert choice.at_edge


@pytest.mark.parametrize("side", ["target", "source"])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_factor_that_breaks_the_model_is_excluded(side, broken):
    target, source = Valley(1.3), Valley(1.3)

    def breaking(valley):
        return lambda phi: valley(phi) if phi < 1.1 else np.full(DOCUMENTS, broken)

    losses = {"target": target, "source": source}
    losses[side] = breaking(losses[side])
    sizes, base = (target.bytes, source.bytes), source(0.0)
    choice = choose(losses["target"], losses["source"], sizes, settings(beta=0.1), 0, base)
    assert 1.08 < choice.best < 1.1
    assert all(point["phi"] < 1.1 for point in choice.curve)


def test_json_holds_what_the_report_draws():
    target, source = Valley(0.7, spread=0.3), Valley(0.0)
    choice = choose(target, source, (target.bytes, source.bytes), settings(beta=0.1), 0)
    told = json.loads(json.dumps(choice.to_json(), allow_nan=False))
    assert told["phi"] == {"value": choice.value, "low": choice.low, "high": choice.high}
    phis = [point["phi"] for point in told["curve"]]
    assert phis == sorted(phis)
    assert {point["phi"] for point in told["curve"] if point["from"] == "grid"} == set(GRID)
    alone = choose(target, None, (target.bytes, target.bytes), settings(), 0).to_json()
    assert alone["source_base_bpb"] is None
    assert {point["source_bpb"] for point in alone["curve"]} == {None}


def test_no_finite_loss_is_refused():
    with user_error("correct.grid", "learning rate"):
        choose(lambda phi: np.full(3, math.inf), None, (np.ones(3), np.ones(3)), settings(), 0)


def test_no_text_is_refused():
    with user_error("bits per byte", "empty"):
        choose(lambda phi: np.zeros(3), None, (np.zeros(3), np.zeros(3)), settings(), 0)
