"""Continuations against a loop that takes the likeliest next token without a cache."""

import math

import pytest
import torch
from errors import user_error
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
)

from hpc_llm.evaluation.samples import continue_ids, continue_texts

PROMPTS = ["Tom and Lily went to", "The dog"]


@torch.no_grad()
def likeliest(model, ids, count):
    for _ in range(count):
        ids = [*ids, int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
    return ids


def test_continuations_are_the_likeliest_tokens(shared):
    folder = shared / "data/models/stories260K-hf"
    model = AutoModelForCausalLM.from_pretrained(folder).train()
    model.config.use_cache = False
    model.generation_config.repetition_penalty = 5.0  # a model's own taste must not count
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = continue_texts(model, tokenizer, PROMPTS, 20)
    assert model.training
    model.eval()
    for prompt, text in zip(PROMPTS, texts, strict=True):
        ids = likeliest(model, [1, *tokenizer.encode(prompt, add_special_tokens=False)], 20)
        assert prompt + text == tokenizer.decode(ids, skip_special_tokens=True)
        assert text.startswith(" ")


@pytest.fixture
def gpt2(shared):
    tokenizer = GPT2Tokenizer.from_pretrained(shared / "data/tokenizers/gpt2")
    torch.manual_seed(0)
    config = GPT2Config(n_positions=24, n_embd=8, n_layer=1, n_head=2)
    return GPT2LMHeadModel(config).eval(), tokenizer


def test_text_ends_at_eos_and_at_the_last_position(gpt2):
    model, tokenizer = gpt2
    bias = torch.nn.Parameter(torch.zeros(len(tokenizer)))
    model.lm_head.bias = bias
    bias.data[tokenizer.encode(" dog")] = 1e4
    assert continue_texts(model, tokenizer, ["one two"], 100) == [" dog" * 21]
    bias.data[tokenizer.eos_token_id] = 1e5
    assert continue_texts(model, tokenizer, ["one two"], 100) == [""]


def test_character_cut_in_the_middle_is_excluded(gpt2):
    model, tokenizer = gpt2
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(tokenizer)))
    first_byte = tokenizer.convert_tokens_to_ids("Ñ")  # how byte-level BPE writes 0xD1
    model.lm_head.bias.data[first_byte] = 1e4
    assert continue_texts(model, tokenizer, ["one"], 1) == [""]


def test_sampling_depends_on_the_seed_and_becomes_greedy_at_temperature_zero(gpt2):
    model, tokenizer = gpt2

    def answer(**how):
        return continue_ids(model, tokenizer, [7, 8], 12, **how)

    greedy = continue_ids(model, tokenizer, [7, 8], 12)
    assert answer(temperature=1e-6, seed=3) == greedy
    drawn = [answer(temperature=1.0, seed=seed) for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2] != drawn[1]


def test_a_token_is_drawn_with_its_probability(gpt2):
    model, tokenizer = gpt2
    model.lm_head.bias = torch.nn.Parameter(torch.full((len(tokenizer),), -1e4))
    words = tokenizer.encode(" dog cat")
    model.lm_head.bias.data[words] = torch.tensor([0.0, 2.0])
    model.lm_head.weight.data.zero_()
    texts = [continue_ids(model, tokenizer, [7], 10, temperature=2.0, seed=s) for s in range(20)]
    share = "".join(texts).count("cat") / 200
    expected = 1 / (1 + math.e ** -(2.0 / 2.0))  # 0.731
    assert abs(share - expected) < 3 * (expected * (1 - expected) / 200) ** 0.5


def test_prompt_that_fills_the_model_is_refused(gpt2):
    model, tokenizer = gpt2
    with user_error("prompt", "1 to 23 tokens", value="41 tokens"):
        continue_texts(model, tokenizer, [" dog" * 40], 10)
