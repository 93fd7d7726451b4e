"""transplant.output=first: the row of the first old token of a new token's spelling.

Where a new token is due, the base model predicts the first of its old pieces. Tokens with the same
first piece get equal rows, which multiplies its probability: the record has the largest number.
"""

from collections import Counter

import torch

from hpc_llm.vocabulary.rows import NewTokens, sum_of_pieces

__all__ = ["rows"]


def rows(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the rows (n, d) of the new `tokens`; `old` is (vocab_o, d)."""
    shared = Counter(ids[0] for ids in tokens.pieces if ids)
    tokens.report["most_with_one_first_piece"] = max(shared.values(), default=0)
    return sum_of_pieces(old, tokens, lambda ids: [1.0] + [0.0] * (len(ids) - 1))
