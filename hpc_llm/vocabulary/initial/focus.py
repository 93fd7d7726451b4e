"""transplant.input=focus: a weighted mean of the anchors with the most similar donor vectors.

Dobler and de Melo 2023 (arXiv 2305.14481): cosines to all anchors, made sparse weights by
sparsemax. Tokens without a vector are drawn from N(mu, diag sigma^2) of the old rows, as there.
"""

import numpy as np
import torch

from hpc_llm.vocabulary.fits import fitted_anchors, sparsemax, unit, with_norms
from hpc_llm.vocabulary.initial.random import rows as drawn_rows
from hpc_llm.vocabulary.rows import NewTokens

__all__ = ["rows"]

CHUNK = 1024  # tokens at a time: the cosines are (CHUNK, anchors)


def rows(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the rows (n, d) of the new `tokens`; `old` is (vocab_o, d) in fp32."""
    result = drawn_rows(old, tokens)
    if not tokens.ids:
        return result
    fitted = fitted_anchors(old.numpy(), tokens)
    known = fitted.donor.known[tokens.ids]
    ids = np.array(tokens.ids)[known]
    found, support = np.zeros((len(ids), old.shape[1])), np.zeros(len(ids))
    anchors, vectors = unit(fitted.vectors), unit(fitted.donor.vectors)
    for begin in range(0, len(ids), CHUNK):
        part = slice(begin, begin + CHUNK)
        cosines = vectors[ids[part]] @ anchors.T
        weights = sparsemax(cosines / tokens.settings.focus.temperature)
        found[part], support[part] = weights @ fitted.rows, (weights > 0).sum(1)
    tokens.report["median_support"] = float(np.median(support)) if len(ids) else None
    found = with_norms(found, ids, fitted, tokens)
    result[torch.from_numpy(known)] = torch.from_numpy(found).float()
    return result
