"""transplant.input=weighted_mean: a mean of the old pieces in which the first weighs most.

The weights are exp(-m k) s_k, normalised: k = 0, 1, ... is the position of a piece, m is
`transplant.weighted_mean.decay`, and s_k is `transplant.weighted_mean.space_weight` for pieces of
spaces if there are others (our definition). With decay 0 and space_weight 1 it is `mean`.
"""

import math

import torch

from hpc_llm.vocabulary.rows import NewTokens, sum_of_pieces

__all__ = ["rows"]


def rows(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the rows (n, d) of the new `tokens`; `old` is (vocab_o, d)."""
    settings = tokens.settings.weighted_mean

    def weigh(ids: list[int]) -> list[float]:
        plain = all(i in tokens.spaces for i in ids)
        weights = [
            math.exp(-settings.decay * k)
            * (1.0 if plain or i not in tokens.spaces else settings.space_weight)
            for k, i in enumerate(ids)
        ]
        return [weight / sum(weights) for weight in weights]

    return sum_of_pieces(old, tokens, weigh)
