"""Rows of embedding and LM head beyond the last token: padding of a matrix to a round size.

Their values are undefined, but the softmax over all rows sees them.
"""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["cut_broken_padding"]


def cut_broken_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Cut off the rows beyond the tokens of `tokenizer` if one of them is NaN or infinite.

    Returns the number of rows cut off.
    """
    used = max(tokenizer.get_vocab().values()) + 1
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    padding = [weight[used:] for end in ends if end is not None for weight in end.parameters()]
    if all(bool(torch.isfinite(rows).all()) for rows in padding):
        return 0
    before = ends[0].weight.shape[0]
    model.resize_token_embeddings(used, mean_resizing=False)
    return int(before - used)
