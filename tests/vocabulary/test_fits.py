"""Fits and the donor against solvers and loops that share no code with them."""

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
import torch
from errors import user_error
from tiny import settings

from hpc_llm.vocabulary.donors import Donor, donor_of
from hpc_llm.vocabulary.donors._pairs import count_pairs
from hpc_llm.vocabulary.initial import initialisation
from hpc_llm.vocabulary.rows import NewTokens, mean_of_pieces
from hpc_llm.vocabulary.solvers import matching_pursuit, ridge, sparsemax, unit

RANDOM = np.random.default_rng(0)


def test_ridge_solves_the_normal_equations_of_a_weighted_fit():
    """The reference stacks the penalty as further rows of one least-squares problem."""
    x, y, w = RANDOM.normal(size=(40, 5)), RANDOM.normal(size=(40, 3)), RANDOM.uniform(0.1, 2, 40)
    matrix, shift = ridge(x, y, w, 0.7)
    root = np.sqrt(w)[:, None]
    design = np.block([[root * x, root], [math.sqrt(0.7) * np.eye(5), np.zeros((5, 1))]])
    wanted = np.linalg.lstsq(design, np.vstack([root * y, np.zeros((5, 3))]), rcond=None)[0]
    np.testing.assert_allclose(np.vstack([matrix, shift]), wanted, atol=1e-8)


def test_a_ridge_of_any_size_ends_at_the_mean_row():
    x, y, w = RANDOM.normal(size=(40, 5)), RANDOM.normal(size=(40, 3)), RANDOM.uniform(0.1, 2, 40)
    matrix, shift = ridge(x, y, w, 1e14)
    np.testing.assert_allclose(x @ matrix + shift, np.tile(w @ y / w.sum(), (40, 1)), atol=1e-8)


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    scores = RANDOM.normal(size=(20, 6))
    found = sparsemax(scores)
    np.testing.assert_allclose(found.sum(1), 1)
    for row, point in zip(scores, found, strict=True):
        solved = scipy.optimize.minimize(
            lambda p, row=row: ((p - row) ** 2).sum(),
            np.full(6, 1 / 6),
            bounds=[(0, None)] * 6,
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-12},
        )
        np.testing.assert_allclose(point, solved.x, atol=1e-4)


def pursued(target, atoms, most):
    """Orthogonal matching pursuit of one vector as written in textbooks: refit every time."""
    chosen, residual, directions = [], target, unit(atoms)
    for _ in range(most):
        scores = np.abs(directions @ residual)
        scores[chosen] = -1
        chosen.append(int(scores.argmax()))
        weights = np.linalg.lstsq(atoms[chosen].T, target, rcond=None)[0]
        residual = target - weights @ atoms[chosen]
    return chosen, weights


def test_matching_pursuit_is_that_of_the_textbook():
    atoms = RANDOM.normal(size=(50, 12)) * RANDOM.uniform(0.1, 10, (50, 1))
    targets = RANDOM.normal(size=(7, 12))
    chosen, weights = matching_pursuit(targets, atoms, 5)
    for row in range(7):
        wanted, values = pursued(targets[row], atoms, 5)
        assert chosen[row].tolist() == wanted
        np.testing.assert_allclose(weights[row], values, rtol=1e-6)


def test_a_sum_of_three_atoms_is_found_and_nothing_else():
    atoms = RANDOM.normal(size=(30, 40))
    target = 2 * atoms[3] - 0.5 * atoms[8] + atoms[21]
    chosen, weights = matching_pursuit(target[None], atoms, 10)
    found = {int(c): float(w) for c, w in zip(chosen[0], weights[0], strict=True) if c >= 0}
    assert found == pytest.approx({3: 2, 8: -0.5, 21: 1})


def test_pairs_are_those_of_a_double_loop():
    documents = [RANDOM.integers(0, 9, n) for n in (1, 2, 30, 17)]
    wanted = np.zeros((9, 9))
    for document in documents:
        for i, a in enumerate(document):
            for j, b in enumerate(document):
                if 0 < abs(i - j) <= 4:
                    wanted[a, b] += 12 // abs(i - j)
    np.testing.assert_array_equal(count_pairs(documents, 9, 4).toarray(), wanted)
    parts = count_pairs(documents[:2], 9, 4) + count_pairs(documents[2:], 9, 4)
    np.testing.assert_array_equal(parts.toarray(), wanted)


def test_vectors_factorise_the_information_and_depend_on_the_text_only():
    documents = [RANDOM.integers(0, 30, 40) for _ in range(60)]
    plan = replace(settings().transplant.donor, min_count=1)
    donor, again = (donor_of("cooccurrence")(documents, [b""] * 30, 10, plan) for _ in range(2))
    assert donor.vectors.shape == (30, 10)
    assert donor.known.all()
    assert donor.counts.sum() == 2400
    np.testing.assert_array_equal(donor.vectors, again.vectors)
    pairs = count_pairs(documents, 30, plan.window).toarray().astype(float)
    rows, smooth = pairs.sum(1), pairs.sum(0) ** 0.75
    with np.errstate(divide="ignore"):
        ratio = pairs / pairs.sum() / np.outer(rows / rows.sum(), smooth / smooth.sum())
        exact = np.maximum(0, np.log(ratio))
    left, values, _ = np.linalg.svd(exact)
    wanted = np.abs(left[:, :10] * np.sqrt(values[:10]))
    np.testing.assert_allclose(np.abs(donor.vectors), wanted, atol=1e-6)


def test_rare_tokens_have_no_vector():
    plan = replace(settings().transplant.donor, min_count=3)
    donor = donor_of("cooccurrence")([np.array([0, 1, 0, 1, 0, 1, 2])], [b""] * 4, 2, plan)
    assert donor.known.tolist() == [True, True, False, False]


def tokens_of(donor, anchors, ids, **changes):
    plan = deepcopy(settings("transplant.anchors.drop_norm_quantile=0").transplant)
    values = {
        "ids": ids, "pieces": [[0]] * len(ids), "anchors": anchors, "size": len(donor.vectors),
        "seed": 1, "settings": plan, "vectors": lambda largest: donor,
    }  # fmt: skip
    return NewTokens(**values | changes)


def test_projection_returns_the_old_rows_from_themselves():
    """With the old rows as the donor and no penalty, every row is found again."""
    old = torch.randn(220, 4, generator=torch.manual_seed(0))
    donor = Donor(old.double().numpy(), np.full(220, 9), np.ones(220, bool))
    ids = list(range(200, 220))
    tokens = tokens_of(donor, [(i, i) for i in range(200)], ids)
    tokens.settings.projection.ridge = 1e-9
    torch.testing.assert_close(initialisation("projection")(old, tokens), old[200:])
    assert tokens.report["r2"] == pytest.approx(1)


def test_one_anchor_is_copied_by_focus():
    old = torch.randn(10, 4, generator=torch.manual_seed(0))
    donor = Donor(np.tile([1.0, 0.0], (11, 1)), np.full(11, 9), np.ones(11, bool))
    donor.vectors[[5, 10]] = [[0, 1], [1e-9, 1]]  # all anchors are at hand, one is the same
    tokens = tokens_of(donor, [(i, i) for i in range(10)], [10])
    tokens.settings.focus.temperature = 0.01
    torch.testing.assert_close(initialisation("focus")(old, tokens)[0], old[5])


def test_weights_of_pieces():
    old = torch.randn(9, 4, generator=torch.manual_seed(0))
    donor = Donor(np.zeros((3, 1)), np.zeros(3, int), np.zeros(3, bool))
    pieces = [[7, 2, 2], [7]]
    tokens = tokens_of(donor, [(0, 0)], [1, 2], pieces=pieces, spaces=frozenset({7}))
    tokens.settings.weighted_mean.decay = 0.5
    a, b, c = 0.1, math.exp(-0.5), math.exp(-1)
    wanted = (a * old[7] + (b + c) * old[2]) / (a + b + c)
    found = initialisation("weighted_mean")(old, tokens)
    torch.testing.assert_close(found, torch.stack([wanted, old[7]]))
    tokens.settings.weighted_mean.decay = 0
    tokens.settings.weighted_mean.space_weight = 1
    assert torch.equal(initialisation("weighted_mean")(old, tokens), mean_of_pieces(old, tokens))


def test_gaussian_rows_have_the_mean_and_covariance_of_the_old():
    old = torch.randn(500, 3, generator=torch.manual_seed(0)) @ torch.randn(3, 3) + 5
    donor = Donor(np.zeros((40_000, 1)), np.zeros(40_000, int), np.zeros(40_000, bool))
    ids = list(range(40_000))
    found = initialisation("gaussian")(old, tokens_of(donor, [], ids))
    torch.testing.assert_close(found.mean(0), old.mean(0), rtol=0.02, atol=0.02)
    torch.testing.assert_close(found.T.cov(), old.T.cov(), rtol=0.1, atol=0.05)


@pytest.mark.parametrize(("norms", "length"), [("anchors", 4.0), ("frequency", 8.0)])
def test_lengths_of_fitted_rows(norms, length):
    """Anchors as long as 1 + count: their median is 4, and a token of the last one's count is 8."""
    old = unit(RANDOM.normal(size=(3, 4))) * [[2], [4], [8]]
    counts = np.array([1, 3, 7, 7])
    donor = Donor(RANDOM.normal(size=(4, 2)), counts, np.ones(4, bool))
    tokens = tokens_of(donor, [(0, 0), (1, 1), (2, 2)], [3])
    tokens.settings.norms = norms
    (row,) = initialisation("focus")(torch.from_numpy(old).float(), tokens)
    assert float(row.norm()) == pytest.approx(length, rel=1e-5)
    assert tokens.report["norms_before"] != [length] * 3


def test_anchors_that_the_text_lacks_leave_the_fit():
    """One more anchor, in no text, with an embedding that would spoil the fit."""
    old = torch.randn(31, 4, generator=torch.manual_seed(0))
    old[30] = 1e6
    counts = np.array([9] * 30 + [0, 9])
    donor = Donor(RANDOM.normal(size=(32, 3)), counts, np.ones(32, bool))
    rows = []
    for anchors in (30, 31):
        tokens = tokens_of(donor, [(i, i) for i in range(anchors)], [31])
        rows.append(initialisation("projection")(old, tokens))
        assert tokens.report["anchors"] == 30
    assert torch.equal(*rows)


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        ({"donor": {"dimensions": 3}}, "transplant.donor.dimensions", 3),
        ({"omp": {"atoms": 3}}, "transplant.omp.atoms", 3),
    ],
)
def test_more_than_the_anchors_can_carry_is_refused(overrides, key, value):
    donor = Donor(RANDOM.normal(size=(12, 2)), np.full(12, 9), np.ones(12, bool))
    tokens = tokens_of(donor, [(i, i) for i in range(11)], [11])
    for group, changes in overrides.items():
        for name, one in changes.items():
            setattr(getattr(tokens.settings, group), name, one)
    with user_error(key, value=value):
        initialisation("omp")(torch.randn(12, 4), tokens)


def test_a_donor_without_text_and_a_tie_of_the_input_are_refused():
    donor = Donor(RANDOM.normal(size=(4, 2)), np.full(4, 9), np.ones(4, bool))
    tokens = tokens_of(donor, [(0, 0), (1, 1), (2, 2)], [3], vectors=None)
    with user_error("transplant", "training text"):
        initialisation("focus")(torch.randn(4, 4), tokens)
    with user_error("transplant.input", value="tie"):
        initialisation("tie")(torch.randn(4, 4), tokens)


def test_a_tie_copies_the_rows_of_the_new_tokens():
    donor = Donor(RANDOM.normal(size=(4, 2)), np.full(4, 9), np.ones(4, bool))
    inputs = torch.randn(4, 3)
    tokens = tokens_of(donor, [(0, 0), (2, 1)], [1, 3], inputs=inputs)
    assert torch.equal(initialisation("tie")(torch.randn(4, 3), tokens), inputs[[1, 3]])


def test_dimensions_follow_the_anchors_that_have_vectors():
    """60 shared tokens, of which 10 are in the text, carry two dimensions."""
    known = np.arange(61) >= 50
    donor = Donor(RANDOM.normal(size=(61, 8)), np.full(61, 9), known)
    tokens = tokens_of(donor, [(i, i) for i in range(60)], [60])
    initialisation("projection")(torch.randn(60, 4), tokens)
    assert tokens.report["anchors"] == 10
    assert tokens.report["dimensions"] == 2
    assert "r2" not in tokens.report  # too few to hold some out
