"""Rows beyond the last token that are NaN or infinite do not count."""

import math

import pytest
import torch
from tiny import settings
from transformers import LlamaConfig, LlamaForCausalLM

from hpc_llm.vocabulary.padding import cut_broken_padding
from hpc_llm.vocabulary.transplant import transplant

PADDING = 8


def padded(tokens: int, value: float, *, tied: bool) -> LlamaForCausalLM:
    """Return a model with rows of `value` beyond `tokens`; the others are always the same."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokens,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config).eval()
    model.resize_token_embeddings(tokens + PADDING, mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[tokens:] = value
        model.get_output_embeddings().weight[tokens + 1 :] = value
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf, 0.5])
def test_broken_rows_beyond_the_tokens_are_cut_off(stories, llama32k, value, tied):
    _, tokenizer = stories
    size = max(tokenizer.get_vocab().values()) + 1
    model, ids = padded(size, value, tied=tied), torch.arange(2, 40)[None]
    cut = cut_broken_padding(model, tokenizer)
    logits = model(ids).logits
    assert logits.isfinite().all()
    if math.isfinite(value):
        assert (cut, logits.shape[-1]) == (0, size + PADDING)
        return
    assert (cut, model.config.vocab_size) == (PADDING, size)
    torch.manual_seed(0)
    assert torch.equal(logits, LlamaForCausalLM(model.config).eval()(ids).logits)
    transplant(model, tokenizer, llama32k, settings().transplant, seed=1)
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_broken_row_of_a_token_stays(stories):
    _, tokenizer = stories
    size = max(tokenizer.get_vocab().values()) + 1
    model = padded(size, 0.5, tied=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[5] = math.nan
    assert cut_broken_padding(model, tokenizer) == 0
