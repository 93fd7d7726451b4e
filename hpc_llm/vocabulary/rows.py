"""New tokens as passed to initialisations, and the mean of old embeddings."""

from dataclasses import dataclass

import torch

__all__ = ["NewTokens", "mean_of_pieces"]


@dataclass(frozen=True, kw_only=True)
class NewTokens:
    """The n tokens of the new vocabulary that are missing in the old one."""

    ids: list[int]
    """Their ids in the new vocabulary, ascending."""
    pieces: list[list[int]]
    """For each token the old ids that spell its surface, in order; [] if impossible."""
    anchors: list[tuple[int, int]]
    """(new id, old id) of all other tokens, whose rows are copied."""
    size: int
    """Size of the new vocabulary: n + number of anchors."""
    seed: int
    """Seed of random initialisations."""


def mean_of_pieces(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return T E_o (n, d) for `old` rows E_o (vocab_o, d) in fp32.

    Row i of the sparse matrix T (n, vocab_o) has 1/K at each of the K old tokens that spell token
    i. A token that cannot be spelled gets the mean of all old rows.
    """
    pairs = [(i, j) for i, ids in enumerate(tokens.pieces) for j in ids]
    indices = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T  # (2, nonzeros)
    weights = torch.tensor([1.0 / len(ids) for ids in tokens.pieces for _ in ids])
    size = (len(tokens.ids), old.shape[0])
    matrix = torch.sparse_coo_tensor(indices, weights, size, check_invariants=True)
    result = torch.sparse.mm(matrix.coalesce(), old)  # (n, d)
    unknown = torch.tensor([not ids for ids in tokens.pieces], dtype=torch.bool)  # (n,)
    result[unknown] = old.mean(0)
    return result
