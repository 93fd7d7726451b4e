"""transplant.input=omp: a few anchors whose donor vectors add up to the token's.

Orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad 1993) on the donor vectors; the
coefficients are then applied to the old rows, as in Goddard and Fernandes Neto 2025 (arXiv
2506.06607). Atoms are compared by cosine, so long vectors have no advantage. Tokens without a
vector get the mean of their pieces.
"""

import numpy as np
import torch

from hpc_llm.errors import UserError
from hpc_llm.vocabulary.fits import fill, fitted_anchors
from hpc_llm.vocabulary.rows import NewTokens, combine, mean_of_pieces
from hpc_llm.vocabulary.solvers import matching_pursuit

__all__ = ["rows"]

CHUNK = 128  # tokens at a time: the basis is (CHUNK, atoms, dimensions)
MOST = 64


def rows(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the rows (n, d) of the new `tokens`; `old` is (vocab_o, d)."""
    result = mean_of_pieces(old, tokens)
    if not tokens.ids:
        return result
    fitted = fitted_anchors(old, tokens)
    atoms = fitted.vectors  # (a, q)
    most = _atoms(tokens.settings.omp.atoms, atoms.shape[1])

    def pursued(ids: np.ndarray) -> torch.Tensor:
        chosen, weights = matching_pursuit(fitted.donor.vectors[ids], atoms, most)
        row, column = np.nonzero(chosen >= 0)
        places = torch.from_numpy(np.stack([row, fitted.old_ids[chosen[row, column]]]))
        found = combine(old, places, torch.from_numpy(weights[row, column]), len(ids))
        return found

    count = fill(result, fitted, tokens, pursued, CHUNK)
    tokens.report["atoms"] = most
    tokens.report["sources"] = {"omp": count, "mean": len(tokens.ids) - count}
    return result


def _atoms(wanted: int | None, dimensions: int) -> int:
    """Return the largest number of atoms. Raises `UserError` for more than dimensions."""
    if wanted is None:
        return max(1, min(MOST, dimensions // 2))
    if wanted > dimensions:
        raise UserError(
            "transplant.omp.atoms",
            wanted,
            f"the donor's vectors have {dimensions} dimensions: as many atoms give any vector",
            f"use at most {dimensions}",
        )
    return wanted
