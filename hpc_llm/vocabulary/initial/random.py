"""transplant.input=random: draw new rows from N(mu, diag sigma^2) of the old rows, as a control.

A token spelled by a single old token with another surface takes the row of that token.
"""

import torch

from hpc_llm.vocabulary.noise import noise_of
from hpc_llm.vocabulary.rows import NewTokens, mean_of_pieces
from hpc_llm.vocabulary.statistics import deviation_of, mean_of

__all__ = ["rows"]


def rows(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the rows (n, d) of the new `tokens`; `old` is (vocab_o, d).

    A row depends only on the text of its token and the seed, not on its id or on other tokens.
    """
    result = mean_of_pieces(old, tokens)
    mean = mean_of(old)
    deviation = deviation_of(old, mean)
    drawn = torch.tensor([len(ids) != 1 for ids in tokens.pieces], dtype=torch.bool)  # (n,)
    count = int(drawn.sum())
    tokens.report["sources"] = {"random": count, "mean": len(drawn) - count}
    for places, noise in noise_of(tokens, old.shape[1]):
        own = drawn[places]
        result[places][own] = (mean + noise[own] * deviation).to(old.dtype)
    return result
