"""Fits against scikit-learn, mean rows against mergekit, and the limits of a fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, orthogonal_mp
from tiny import settings

from hpc_llm.vocabulary.anchors import match_rows
from hpc_llm.vocabulary.donors import Donor
from hpc_llm.vocabulary.initial import initialisation
from hpc_llm.vocabulary.rows import NewTokens
from hpc_llm.vocabulary.solvers import matching_pursuit, ridge, unit

RANDOM = np.random.default_rng(0)
ANCHORS, NEW = 60, 20


@pytest.mark.parametrize("penalty", [1e-3, 0.7, 1e4])
def test_ridge_equals_that_of_scikit_learn(penalty):
    """Invariant 4: weights, and an intercept that is not penalised."""
    x, y = RANDOM.normal(3, 2, (40, 5)), RANDOM.normal(-1, 4, (40, 3))
    weights = RANDOM.uniform(0.1, 9, 40)
    matrix, shift = ridge(x, y, weights, penalty)
    fitted = Ridge(alpha=penalty, solver="svd").fit(x, y, sample_weight=weights)
    np.testing.assert_allclose(matrix, fitted.coef_.T, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(shift, fitted.intercept_, rtol=1e-8, atol=1e-8)


def fitted_tokens(vectors, **projection):
    """Anchors 0 to 59 and new tokens 60 to 79 with donor `vectors`, all in the text."""
    plan = settings("transplant.anchors.drop_norm_quantile=0").transplant
    plan = replace(plan, projection=replace(plan.projection, **projection))
    size = ANCHORS + NEW
    donor = Donor(vectors, RANDOM.integers(1, 900, size), np.ones(size, bool))
    return NewTokens(
        ids=list(range(ANCHORS, size)), pieces=[[0]] * NEW, size=size, seed=1, settings=plan,
        anchors=[(i, i) for i in range(ANCHORS)], vectors=lambda largest: donor,
    )  # fmt: skip


def test_projected_rows_are_the_predictions_of_scikit_learn():
    """Invariant 4 for the initialisation: standardised vectors, weights log(1 + count)."""
    vectors = RANDOM.normal(2, 3, (ANCHORS + NEW, 4))
    tokens = fitted_tokens(vectors, ridge=2.0)
    old = torch.randn(ANCHORS, 8, generator=torch.Generator().manual_seed(0))
    found = initialisation("projection")(old, tokens)
    x = (vectors - vectors.mean(0)) / vectors.std(0)
    weights = np.log1p(tokens.donor(4).counts[:ANCHORS])
    fitted = Ridge(alpha=2.0).fit(x[:ANCHORS], old.double().numpy(), sample_weight=weights)
    np.testing.assert_allclose(found.numpy(), fitted.predict(x[ANCHORS:]), rtol=1e-5, atol=1e-6)


def test_a_projection_without_penalty_repeats_its_donor_and_with_a_large_one_the_mean():
    """Invariant 4: the donor is an invertible map of the old rows; lam -> 0 and lam -> inf."""
    rows = torch.randn(ANCHORS + NEW, 4, generator=torch.Generator().manual_seed(0))
    vectors = rows.double().numpy() @ RANDOM.normal(size=(4, 4)) + 5
    old = rows[:ANCHORS]
    found = initialisation("projection")(old, fitted_tokens(vectors, ridge=1e-9))
    torch.testing.assert_close(found, rows[ANCHORS:], rtol=1e-6, atol=1e-6)
    tokens = fitted_tokens(vectors, ridge=1e12)
    weights = torch.from_numpy(np.log1p(tokens.donor(4).counts[:ANCHORS]))
    mean = (weights @ old.double() / weights.sum()).float().expand(NEW, -1)
    torch.testing.assert_close(initialisation("projection")(old, tokens), mean)


def test_matching_pursuit_equals_that_of_scikit_learn():
    """Invariant 6: on atoms of length 1, and coefficients of the unscaled ones."""
    atoms = RANDOM.normal(size=(50, 12)) * RANDOM.uniform(0.1, 10, (50, 1))
    targets = RANDOM.normal(size=(9, 12))
    chosen, weights = matching_pursuit(targets, atoms, 5)
    wanted = orthogonal_mp(unit(atoms).T, targets.T, n_nonzero_coefs=5)  # (50, 9)
    found = np.zeros_like(wanted)
    for row, (places, values) in enumerate(zip(chosen, weights, strict=True)):
        found[places, row] = values * np.linalg.norm(atoms[places], axis=1)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_focus_with_one_anchor_is_that_anchor():
    """Invariant 5: two shared tokens with the same old row, so any weights give that row."""
    old = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    donor = Donor(RANDOM.normal(size=(5, 2)), np.full(5, 9), np.ones(5, bool))
    plan = settings("transplant.anchors.drop_norm_quantile=0").transplant
    tokens = NewTokens(
        ids=[2, 3, 4], pieces=[[0]] * 3, anchors=[(0, 1), (1, 1)], size=5, seed=1, settings=plan,
        vectors=lambda largest: donor,
    )  # fmt: skip
    torch.testing.assert_close(initialisation("focus")(old, tokens), old[1].expand(3, -1))


def test_means_are_those_of_mergekit(stories, llama32k):
    """Invariant 8: mergekit's `subword` with the mean, of a tied Llama.

    Its tokenizer call prepends a space to a text, ours does not: compared are tokens that begin
    with a letter after a space, which both spell alike.
    """
    subword = pytest.importorskip("mergekit.tokensurgeon.subword")
    normalization = pytest.importorskip("mergekit.tokenizer.normalization")
    model, old = stories
    weight = model.get_input_embeddings().weight.detach()
    tokens, _ = match_rows(old, llama32k, settings().transplant, seed=1)
    ours = initialisation("mean")(weight, tokens)
    names = llama32k.convert_ids_to_tokens(tokens.ids)
    places = [i for i, name in enumerate(names) if name[0] == "▁" and name[1:].isalpha()]
    assert len(places) > 10_000
    wanted = subword.subword_approximate(
        weight, [normalization.normalize_token(names[i][1:], {}) for i in places], False, old
    )
    torch.testing.assert_close(ours[places], wanted)
