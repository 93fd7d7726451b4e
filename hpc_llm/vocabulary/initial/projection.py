"""transplant.input=projection: map donor vectors to embeddings by a ridge regression on anchors.

The recipe of the lecture "projection of embeddings" is not published; this definition is ours. The
vectors are standardised, anchors weigh log(1 + count), and the penalty is chosen on held-out
anchors. Tokens without a vector get the mean of their pieces.
"""

import numpy as np
import torch

from hpc_llm.vocabulary.fits import Fitted, fill, fitted_anchors, held_out
from hpc_llm.vocabulary.rows import NewTokens, mean_of_pieces
from hpc_llm.vocabulary.solvers import cosine, moments, r_squared

__all__ = ["rows"]

CHUNK = 2048  # tokens at a time: their rows are in float64
FEWEST = 5  # anchors held out, and left, to compare penalties
PENALTIES = [10.0**power for power in range(-3, 6)]


def rows(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the rows (n, d) of the new `tokens`; `old` is (vocab_o, d)."""
    result = mean_of_pieces(old, tokens)
    if not tokens.ids:
        return result
    fitted = fitted_anchors(old, tokens)
    known = fitted.donor.vectors[fitted.donor.known]
    centre, deviation = known.mean(0), known.std(0)
    deviation = np.where(deviation == 0, 1.0, deviation)
    x = (fitted.vectors - centre) / deviation  # (a, q)
    weights = np.log1p(fitted.donor.counts[fitted.new_ids])
    penalty = _penalty(x, weights, fitted, tokens)
    matrix, shift = moments(x, weights, fitted.rows).solve(penalty)

    def projected(ids: np.ndarray) -> torch.Tensor:
        vectors = (fitted.donor.vectors[ids] - centre) / deviation
        return torch.from_numpy(vectors @ matrix + shift)

    count = fill(result, fitted, tokens, projected, CHUNK)
    tokens.report["sources"] = {"projection": count, "mean": len(tokens.ids) - count}
    return result


def _penalty(x: np.ndarray, weights: np.ndarray, fitted: Fitted, tokens: NewTokens) -> float:
    """Return the penalty with the best R2 on the held-out anchors; report it and its quality."""
    settings = tokens.settings.projection
    out = held_out(tokens, fitted.new_ids, settings.holdout)  # (a,)
    kept = np.flatnonzero(~out)
    penalty = settings.ridge
    if out.sum() >= FEWEST and len(kept) >= FEWEST:
        seen = moments(x[kept], weights[kept], lambda part: fitted.rows(kept[part]))
        wanted = fitted.rows(out)
        tried = []
        for choice in PENALTIES if penalty is None else [penalty]:
            matrix, shift = seen.solve(choice)
            found = x[out] @ matrix + shift
            tried.append((r_squared(wanted, found, weights[out]), -choice, cosine(found, wanted)))
        r2, negative, angle = max(tried)
        penalty = -negative
        tokens.report.update(r2=r2, cosine=angle)
    penalty = 1.0 if penalty is None else penalty
    tokens.report["ridge"] = penalty
    return penalty
