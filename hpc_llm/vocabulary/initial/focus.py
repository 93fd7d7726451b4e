"""transplant.input=focus: a weighted mean of the anchors with the most similar donor vectors.

Dobler and de Melo 2023 (arXiv 2305.14481): cosines to all anchors, made sparse weights by
sparsemax. Tokens without a vector are drawn from N(mu, diag sigma^2) of the old rows, as there.
"""

import numpy as np
import torch

from hpc_llm.vocabulary.fits import fill, fitted_anchors
from hpc_llm.vocabulary.initial.random import rows as drawn_rows
from hpc_llm.vocabulary.rows import NewTokens, combine
from hpc_llm.vocabulary.solvers import sparsemax, unit

__all__ = ["rows"]

CHUNK = 128  # tokens at a time: cosines and their order are (CHUNK, anchors)


def rows(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the rows (n, d) of the new `tokens`; `old` is (vocab_o, d)."""
    result = drawn_rows(old, tokens)
    if not tokens.ids:
        return result
    fitted = fitted_anchors(old, tokens)
    anchors, support = unit(fitted.vectors), []  # (a, q)

    def similar(ids: np.ndarray) -> torch.Tensor:
        cosines = unit(fitted.donor.vectors[ids]) @ anchors.T  # (m, a)
        weights = sparsemax(cosines / tokens.settings.focus.temperature)
        row, column = np.nonzero(weights)
        support.extend((weights > 0).sum(1))
        places = torch.from_numpy(np.stack([row, fitted.old_ids[column]]))
        found = combine(old, places, torch.from_numpy(weights[row, column]), len(ids))
        return found

    count = fill(result, fitted, tokens, similar, CHUNK)
    tokens.report["median_support"] = float(np.median(support)) if support else None
    tokens.report["sources"] = {"focus": count, "random": len(tokens.ids) - count}
    return result
