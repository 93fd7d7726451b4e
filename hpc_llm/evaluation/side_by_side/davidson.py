"""Strengths of models from comparisons with ties: Davidson (1970), JASA 65(329), 317-328.

P(i beats j) = p_i / (p_i + p_j + v sqrt(p_i p_j)), P(tie) = v sqrt(p_i p_j) / (the same). Divided
by sqrt(p_i p_j), with d = log p_i - log p_j, the three outcomes (i, j, tie) are the softmax of
(d/2, -d/2, log v).
Without ties it is the model of Bradley and Terry (1952).
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

__all__ = ["PRIOR", "Strengths", "fit_strengths"]

PRIOR = 0.1
"""Wins added in both directions of every compared pair: strengths stay finite if one model wins
always."""


@dataclass(frozen=True)
class Strengths:
    """The fitted model."""

    log_strength: np.ndarray
    """log p of each model, sum 0 (models,)."""
    log_tie: float | None
    """log v; None: there are no ties, v = 0."""


def fit_strengths(wins: np.ndarray, ties: np.ndarray, prior: float = PRIOR) -> Strengths:
    """Return the maximum likelihood fit.

    `wins` (models, models): how often the row's model beat the column's; `ties` (models, models):
    how often they tied, each tie counted once, in either place. Weights may be fractions. Groups
    of models that are never compared with each other have mean 0 each.
    """
    first, second = np.triu_indices(len(wins), 1)
    tied = ties[first, second] + ties[second, first]  # (pairs,)
    won, lost = wins[first, second], wins[second, first]
    met = won + lost + tied > 0
    won, lost = won + prior * met, lost + prior * met
    number, has_ties = won + lost + tied, bool(tied.sum() > 0)

    def negative(at: np.ndarray) -> tuple[float, np.ndarray]:
        d = at[first] - at[second]
        nu = np.full_like(d, at[-1] if has_ties else -np.inf)
        scores = np.stack([d / 2, -d / 2, nu])  # (3, pairs)
        top = scores.max(0)
        log_sum = top + np.log(np.exp(scores - top).sum(0))
        chance = np.exp(scores - log_sum)
        value = won @ (d / 2) - lost @ (d / 2) - number @ log_sum
        slope = (won - lost - number * (chance[0] - chance[1])) / 2
        gradient = np.zeros_like(at)
        np.add.at(gradient, first, slope)
        np.add.at(gradient, second, -slope)
        if has_ties:
            value += tied.sum() * at[-1]
            gradient[-1] = (tied - number * chance[2]).sum()
        return -float(value), -gradient

    start = np.zeros(len(wins) + has_ties)
    options = {"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(negative, start, jac=True, method="L-BFGS-B", options=options).x
    strength = found[: len(wins)]
    return Strengths(strength - strength.mean(), float(found[-1]) if has_ties else None)
