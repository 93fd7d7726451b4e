"""Real tokenizers and models for the vocabulary transplant."""

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture
def stories(shared):
    """A small Llama and its tokenizer of 512 tokens."""
    folder = shared / "data/models/stories260K-hf"
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def llama32k(shared):
    """The tokenizer of Llama-2."""
    return AutoTokenizer.from_pretrained(shared / "data/tokenizers/llama2-32k")
