"""transplant.output=tie: a new token's row of the LM head is its input embedding.

Only for the LM head of a model whose embeddings are not tied; anchors keep their own rows.
"""

import torch

from hpc_llm.errors import UserError
from hpc_llm.vocabulary.rows import NewTokens

__all__ = ["rows"]


def rows(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the input embeddings (n, d) of the new `tokens`; `old` is (vocab_o, d)."""
    if not tokens.ids:
        return old[:0]
    if tokens.inputs is None:
        rule, fix = "is for the LM head of a model whose embeddings are not tied", "use mean"
        raise UserError("transplant.input", "tie", rule, fix)
    if tokens.inputs.shape[1] != old.shape[1]:
        rule = "needs an LM head as wide as the input embedding"
        raise UserError("transplant.output", "tie", rule, "use transplant.output=mean")
    return tokens.inputs[tokens.ids]
