"""Bits per byte as a figure: its value, its interval, and a published model."""

import gzip
import json
import math

import numpy as np
import pytest
import torch
from errors import user_error
from sentencepiece import SentencePieceProcessor
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpc_llm.evaluation.bits_per_byte import bits_per_byte, document_nll, measure_bpb
from hpc_llm.evaluation.samples import continue_texts
from hpc_llm.settings import EvaluationSettings
from hpc_llm.tokenizer import text_encoder

SIZES = {"test_bytes": 10**6, "tune_bytes": 10**6}

SETTINGS = EvaluationSettings(window=512, stride=256, batch_tokens=4096, **SIZES)


def letters(texts):
    """Encode each letter as one token of the tiny Llama."""
    return [[3 + ord(letter) % 58 for letter in text] for text in texts]


def test_bits_per_byte_by_hand():
    nll = np.array([math.log(2) * 6, math.log(2) * 10])
    assert bits_per_byte(nll, np.array([3, 5])) == pytest.approx(2.0)


def test_uniform_model_spends_log2_of_the_vocabulary_on_each_token(llama):
    torch.nn.init.zeros_(llama.lm_head.weight)
    texts = ["мама", "abc", ""]  # 4 tokens in 8 bytes, 3 tokens in 3 bytes
    bpb = measure_bpb(llama, letters, texts, SETTINGS, 1, 0)
    assert bpb.value == pytest.approx(7 * math.log2(61) / 11, rel=1e-6)
    assert bpb.bytes == 11
    assert bpb.byte_counts.tolist() == [8, 3, 0]
    assert "nll" not in repr(bpb)


def test_interval_agrees_with_the_delta_method(llama):
    generator = np.random.default_rng(0)
    texts = ["".join(map(chr, generator.integers(97, 123, n))) for n in range(20, 60)]
    bpb = measure_bpb(llama, letters, texts, SETTINGS, 1, 0)
    residual = bpb.nll / math.log(2) - bpb.value * bpb.byte_counts
    error = math.sqrt((residual**2).sum()) / bpb.bytes  # of a ratio of two sums
    assert bpb.low < bpb.value < bpb.high
    assert bpb.high - bpb.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    again = measure_bpb(llama, letters, texts, SETTINGS, 1, 0)
    assert (again.low, again.high) == (bpb.low, bpb.high)
    assert measure_bpb(llama, letters, texts, SETTINGS, 1, 1).low != bpb.low


def test_one_document_has_no_width_and_empty_ones_add_none(llama):
    bpb = measure_bpb(llama, letters, ["abc", *[""] * 20], SETTINGS, 1, 0)
    assert bpb.low == pytest.approx(bpb.value)
    assert bpb.high == pytest.approx(bpb.value)


@pytest.mark.parametrize("texts", [[], [""]])
def test_no_text_is_refused(llama, texts):
    with user_error("bits per byte", "empty"):
        measure_bpb(llama, letters, texts, SETTINGS, 1, 0)


def test_unequal_counts_are_refused():
    with user_error("bits per byte", 2, 1):
        bits_per_byte(np.ones(2), np.ones(1))


def test_published_model_knows_its_own_domain(shared):
    folder = shared / "data/models/stories260K-hf"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with gzip.open(shared / "data/en/en_stories_books.jsonl.gz", "rt") as handle:
        books = [json.loads(next(handle))["text"] for _ in range(8)]

    def encode(texts):
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    def bpb(texts):
        return measure_bpb(model, encode, texts, SETTINGS, 1, 0).value

    (story,) = continue_texts(model, tokenizer, [""], 250)
    assert story.startswith(
        "Once upon a time, there was a little girl named Lily. "
        "She loved to play outside in the park. One day, she saw a big, red ball."
    )
    words = story.split()
    shuffled = " ".join(np.random.default_rng(0).permutation(words))
    assert bpb([story]) < 0.35  # its own likeliest words
    assert bpb([shuffled]) > 3 * bpb([story])
    assert bpb(books) > 1.5  # children's books are beyond it


def test_text_with_tokens_that_have_no_embedding(shared):
    """Tokens added without resizing the model are read as the letters that they are."""
    folder = shared / "data/models/stories260K-hf"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = ["Tom saw a big dog <pad>", "<pad> and a big dog"]
    plain = measure_bpb(model, text_encoder(tokenizer), texts, SETTINGS, 1, 0)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.add_tokens(["big dog"])
    for special in ("text", "tokens"):
        encode = text_encoder(tokenizer, special, model.get_input_embeddings().num_embeddings)
        assert measure_bpb(model, encode, texts, SETTINGS, 1, 0).value == plain.value


@pytest.mark.parametrize("special", ["text", "tokens"])
def test_literal_special_strings_are_scored_as_they_are_trained(shared, special):
    """The nats of the ids that sentencepiece, which encodes training text, gives."""
    folder = shared / "data/models/stories260K-hf"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = ["Tom said </s> and <unk>.", "Once upon a time <s>there was a dog</s>"]
    ids = SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).encode(texts)
    trained = bits_per_byte(document_nll(model, ids, SETTINGS, 1), np.array(list(map(len, texts))))
    scored = measure_bpb(model, text_encoder(tokenizer, special), texts, SETTINGS, 1, 0)
    assert (scored.value == trained) == (special == "text")
