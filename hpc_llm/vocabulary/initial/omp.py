"""transplant.input=omp: a few anchors whose donor vectors add up to the token's.

Orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad 1993) on the donor vectors; the
coefficients are then applied to the old rows, as in Goddard and Fernandes Neto 2025 (arXiv
2506.06607). Atoms are compared by cosine, so long vectors have no advantage. Tokens without a
vector get the mean of their pieces.
"""

import numpy as np
import torch

from hpc_llm.errors import UserError
from hpc_llm.vocabulary.fits import fitted_anchors, matching_pursuit, with_norms
from hpc_llm.vocabulary.rows import NewTokens, mean_of_pieces

__all__ = ["rows"]

CHUNK = 256  # tokens at a time: the basis is (CHUNK, atoms, dimensions)
MOST = 64


def rows(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the rows (n, d) of the new `tokens`; `old` is (vocab_o, d) in fp32."""
    result = mean_of_pieces(old, tokens)
    if not tokens.ids:
        return result
    fitted = fitted_anchors(old.numpy(), tokens)
    atoms = fitted.vectors
    most = _atoms(tokens.settings.omp.atoms, atoms.shape[1])
    known = fitted.donor.known[tokens.ids]
    ids = np.array(tokens.ids)[known]
    found = np.zeros((len(ids), old.shape[1]))
    for begin in range(0, len(ids), CHUNK):
        part = slice(begin, begin + CHUNK)
        chosen, weights = matching_pursuit(fitted.donor.vectors[ids[part]], atoms, most)
        found[part] = np.einsum("nk,nkd->nd", weights, fitted.rows[chosen])
    tokens.report["atoms"] = most
    found = with_norms(found, ids, fitted, tokens)
    result[torch.from_numpy(known)] = torch.from_numpy(found).float()
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
