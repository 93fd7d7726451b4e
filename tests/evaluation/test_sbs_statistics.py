"""Statistics of side by side against published examples, other algorithms and simulation."""

import numpy as np
import pytest
from scipy.optimize import minimize

from hpc_llm.evaluation.side_by_side.agreement import agreement_with_others, krippendorff_alpha
from hpc_llm.evaluation.side_by_side.davidson import fit_strengths
from hpc_llm.evaluation.side_by_side.power import study_power
from hpc_llm.evaluation.side_by_side.resampling import draw, mean_vote


def units(rows):
    return [
        {str(row): code for row, code in enumerate(column) if code != "."}
        for column in zip(*rows, strict=True)
    ]


def test_alpha_of_the_published_example():
    # Krippendorff (2011), section C: four observers, twelve units, missing values
    rows = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    found = krippendorff_alpha(units(rows))
    assert found.value == pytest.approx(0.743, abs=5e-4)
    assert found.low < found.value < found.high


def test_alpha_is_one_for_equal_votes_about_zero_for_random_ones_and_undefined_for_one_kind():
    rng = np.random.default_rng(0)
    same = ["".join(rng.choice(list("abc"), 40))] * 3
    assert krippendorff_alpha(units(same)).value == 1
    random = ["".join(rng.choice(list("abc"), 600)) for _ in range(4)]
    found = krippendorff_alpha(units(random))
    assert abs(found.value) < 0.05
    assert found.low < 0 < found.high
    assert krippendorff_alpha(units(["aaa", "aaa"])) is None
    assert krippendorff_alpha(units(["ab", ".."])) is None


def test_agreement_counts_pairs_with_the_annotator():
    assert agreement_with_others(units(["aab", "aba", "a.b"]), "0") == (3, 5)


def bradley_terry(wins, rounds=5000):
    """Return log strengths by the MM algorithm of Hunter (2004), with sum 0."""
    games, p = wins + wins.T, np.ones(len(wins))
    for _ in range(rounds):
        p = wins.sum(1) / (games / (p[:, None] + p[None, :])).sum(1)
        p /= np.exp(np.log(p).mean())
    return np.log(p)


def test_without_ties_strengths_are_those_of_another_algorithm_for_bradley_terry():
    wins = np.random.default_rng(1).integers(1, 30, (5, 5)).astype(float)
    np.fill_diagonal(wins, 0)
    found = fit_strengths(wins, np.zeros((5, 5)), prior=0)
    assert found.log_tie is None
    np.testing.assert_allclose(found.log_strength, bradley_terry(wins), atol=1e-4)
    with_prior = fit_strengths(wins, np.zeros((5, 5)), prior=2.0)
    more = bradley_terry(wins + 2.0 * (1 - np.eye(5)))
    np.testing.assert_allclose(with_prior.log_strength, more, atol=1e-4)


def davidson(p, v):
    """Return P(win) and P(tie) of every pair, by the formula of the paper."""
    root = v * np.sqrt(np.outer(p, p))
    total = p[:, None] + p[None, :] + root
    return p[:, None] / total, root / total


def test_with_ties_strengths_are_those_of_a_search_on_the_formula():
    rng = np.random.default_rng(2)
    wins, ties = rng.integers(1, 20, (3, 3)), np.triu(rng.integers(1, 20, (3, 3)), 1)
    np.fill_diagonal(wins, 0)

    def negative(at):
        win, tie = davidson(np.exp([at[0], at[1], -at[0] - at[1]]), np.exp(at[2]))
        return -(wins * np.log(win)).sum() - (ties * np.log(tie)).sum()

    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 5000}
    best = minimize(negative, np.zeros(3), method="Nelder-Mead", options=options).x
    found = fit_strengths(wins.astype(float), ties.astype(float), prior=0)
    np.testing.assert_allclose(found.log_strength, [best[0], best[1], -best[:2].sum()], atol=1e-5)
    assert found.log_tie == pytest.approx(best[2], abs=1e-5)
    swapped = fit_strengths(wins.astype(float), ties.T.astype(float), prior=0)
    np.testing.assert_allclose(found.log_strength, swapped.log_strength, atol=1e-6)


def test_planted_strengths_are_recovered_from_simulated_votes():
    rng = np.random.default_rng(3)
    planted, v = np.array([0.6, 0.1, -0.7]), 0.8
    win, tie = davidson(np.exp(planted), v)
    wins, ties = np.zeros((3, 3)), np.zeros((3, 3))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        counts = rng.multinomial(3334, [win[i, j], win[j, i], tie[i, j]])
        wins[i, j], wins[j, i], ties[i, j] = counts
    found = fit_strengths(wins, ties)
    np.testing.assert_allclose(found.log_strength, planted, atol=0.05)
    assert found.log_tie == pytest.approx(np.log(v), abs=0.05)


def test_a_clean_sweep_is_finite():
    found = fit_strengths(np.array([[0, 50], [0, 0.0]]), np.zeros((2, 2)))
    # the prior: 50.1 wins to 0.1
    assert found.log_strength[0] * 2 == pytest.approx(np.log(501), abs=1e-3)


def simulated(rng, rate, questions=40, people=8, spread=0.2, bias=0.05):
    """Return votes (questions, people) whose probabilities vary by question and by person."""
    by_question = spread * rng.choice([-1, 1], (questions, 1))
    by_person = bias * rng.choice([-1, 1], (1, people))
    return (rng.random((questions, people)) < rate + by_question + by_person).astype(float)


def test_the_interval_covers_the_true_win_rate_in_simulated_studies():
    rng = np.random.default_rng(4)
    places = np.indices((40, 8)).reshape(2, -1)
    covered = 0
    for study in range(100):
        votes = simulated(rng, 0.65)
        found = mean_vote(votes.ravel(), *places, draw(40, 8, study))
        assert found.value == pytest.approx(votes.mean())
        covered += found.low <= 0.65 <= found.high
    assert covered >= 90


def test_a_study_that_lacks_votes_has_an_interval():
    draws = draw(30, 3, 0)
    found = mean_vote([1.0, 0.0, 1.0], [0, 7, 29], [0, 0, 2], draws)
    assert found.value == pytest.approx(2 / 3)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert mean_vote([], [], [], draws) is None


def test_power_states_the_spread_of_simulated_studies_and_what_they_find():
    rng = np.random.default_rng(5)
    found = study_power(40, 8, 8, 0.2, 0.05)
    assert found.votes == 320
    means = np.array([simulated(rng, 0.5).mean() for _ in range(1500)])
    assert means.std() == pytest.approx(found.standard_error, rel=0.08)
    detected = [
        abs(simulated(rng, found.win_rate).mean() - 0.5) > 1.96 * found.standard_error
        for _ in range(1500)
    ]
    assert np.mean(detected) == pytest.approx(0.8, abs=0.05)
    assert study_power(78, 15, 15, 0.2, 0.05).win_rate < found.win_rate
    assert study_power(1, 1, 1, 0, 0).win_rate == 1
