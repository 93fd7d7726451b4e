"""transplant.input=random: draw new rows from N(mu, diag sigma^2) of the old rows, as a control.

A token spelled by a single old token with another surface takes the row of that token.
"""

import torch

from hpc_llm.vocabulary.rows import NewTokens, mean_of_pieces

__all__ = ["rows"]


def rows(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the rows (n, d) of the new `tokens`; `old` is (vocab_o, d) in fp32.

    The noise is drawn for the whole vocabulary, so a row depends only on its id and the seed, not
    on which other tokens are new.
    """
    result = mean_of_pieces(old, tokens)
    generator = torch.Generator().manual_seed(tokens.seed)
    noise = torch.randn(tokens.size, old.shape[1], generator=generator)[tokens.ids]  # (n, d)
    drawn = torch.tensor([len(ids) != 1 for ids in tokens.pieces], dtype=torch.bool)  # (n,)
    result[drawn] = (old.mean(0) + noise * old.std(0))[drawn]
    return result
