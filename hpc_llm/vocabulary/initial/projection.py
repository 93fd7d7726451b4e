"""transplant.input=projection: map donor vectors to embeddings by a ridge regression on anchors.

The recipe of the lecture "projection of embeddings" is not published; this definition is ours. The
vectors are standardised, anchors weigh log(1 + count), and the penalty is chosen on held-out
anchors. Tokens without a vector get the mean of their pieces.
"""

import numpy as np
import torch

from hpc_llm.vocabulary.fits import (
    Fitted,
    cosines_of,
    fitted_anchors,
    held_out,
    r_squared,
    ridge,
    with_norms,
)
from hpc_llm.vocabulary.rows import NewTokens, mean_of_pieces

__all__ = ["rows"]

FEWEST = 5  # anchors held out, and left, to compare penalties
PENALTIES = [10.0**power for power in range(-3, 6)]


def rows(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the rows (n, d) of the new `tokens`; `old` is (vocab_o, d) in fp32."""
    result = mean_of_pieces(old, tokens)
    if not tokens.ids:
        return result
    fitted = fitted_anchors(old.numpy(), tokens)
    vectors = _standardised(fitted)
    x, y = vectors[fitted.new_ids], fitted.rows
    weights = np.log1p(fitted.donor.counts[fitted.new_ids])
    out = held_out(tokens, fitted.new_ids, tokens.settings.projection.holdout)
    penalty = tokens.settings.projection.ridge
    if out.sum() >= FEWEST and (~out).sum() >= FEWEST:
        choices = PENALTIES if penalty is None else [penalty]
        penalty, quality = _best(x, y, weights, out, choices)
        tokens.report.update(quality)
    matrix, shift = ridge(x, y, weights, 1.0 if penalty is None else penalty)
    tokens.report["ridge"] = penalty
    known = fitted.donor.known[tokens.ids]
    ids = np.array(tokens.ids)[known]
    found = with_norms(vectors[ids] @ matrix + shift, ids, fitted, tokens)
    result[torch.from_numpy(known)] = torch.from_numpy(found).float()
    return result


def _standardised(fitted: Fitted) -> np.ndarray:
    """Return the donor's vectors (vocab_n, q) with mean 0 and deviation 1 over known tokens."""
    vectors, known = fitted.donor.vectors, fitted.donor.known
    deviation = vectors[known].std(0)
    scaled: np.ndarray = vectors - vectors[known].mean(0)
    return scaled / np.where(deviation == 0, 1.0, deviation)


def _best(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, out: np.ndarray, choices: list[float]
) -> tuple[float, dict[str, float]]:
    """Return the penalty with the best R2 on the held-out anchors, and its quality there."""
    tried = []
    for penalty in choices:
        matrix, shift = ridge(x[~out], y[~out], weights[~out], penalty)
        found = x[out] @ matrix + shift
        quality = {"r2": r_squared(y[out], found, weights[out]), **cosines_of(found, y[out])}
        tried.append((quality["r2"], penalty, quality))
    _, penalty, quality = max(tried, key=lambda one: one[0])
    return penalty, quality
