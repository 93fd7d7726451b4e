"""Measures of tokenizers with their intervals, against short loops."""

import math
import random

import numpy as np
import pytest

from hpc_llm.evaluation.tokenizers import (
    Tokenizer,
    boundary_measures,
    parity_measures,
    rare_measure,
    renyi_efficiency,
    text_measures,
)
from hpc_llm.tokenizer.measures import count_tokens

random.seed(3)
WORDS = ["ёж", "уж", "и", "на", "полка", "ложка"]
TEXTS = [" ".join(random.choices(WORDS, k=random.randrange(3, 40))) for _ in range(30)]


def letters(texts):
    return [list(map(ord, text)) for text in texts]


def pairs(texts):
    return [[sum(map(ord, text[i : i + 2])) for i in range(0, len(text), 2)] for text in texts]


def found_by(encode, texts=TEXTS):
    counts = count_tokens(encode, texts, lambda ids: texts)
    return text_measures(Tokenizer(vocab_size=5000, counts=counts), count_tokens(letters, texts), 1)


def test_renyi_efficiency_is_that_of_a_loop():
    counts = [7, 1, 0, 3, 9]
    total = 0.0
    for count in counts:
        total += (count / sum(counts)) ** 2.5
    expected = math.log(total) / (1 - 2.5) / math.log(5)
    assert renyi_efficiency(np.array(counts), 5) == pytest.approx(expected)
    assert renyi_efficiency(np.array([4, 4, 4]), 3) == pytest.approx(1)
    assert renyi_efficiency(np.array([4, 0, 0]), 3) == pytest.approx(0)


def test_values_are_sums_over_all_documents():
    found = found_by(pairs)
    tokens = sum(map(len, pairs(TEXTS)))
    characters = sum(map(len, TEXTS))
    assert found["tokens_per_word"].value == tokens / sum(len(t.split()) for t in TEXTS)
    assert found["tokens_per_character"].value == tokens / characters
    assert found["token_ratio"].value == tokens / characters
    ids = [i for one in pairs(TEXTS) for i in one]
    counts = np.array([ids.count(i) for i in set(ids)])
    assert found["renyi_efficiency"].value == pytest.approx(renyi_efficiency(counts, 5000))
    assert found["vocabulary_used"].value == len(set(ids)) / 5000
    assert found["round_trip"].value == 1


def test_intervals_are_those_of_resampled_documents():
    generator = random.Random(5)
    drawn = []
    for _ in range(2000):
        chosen = generator.choices(TEXTS, k=len(TEXTS))
        drawn.append(sum(map(len, pairs(chosen))) / sum(map(len, chosen)))
    drawn.sort()
    found = found_by(pairs)
    assert found["tokens_per_character"].low == pytest.approx(drawn[50], rel=0.005)
    assert found["tokens_per_character"].high == pytest.approx(drawn[-50], rel=0.005)
    renyi = found["renyi_efficiency"]
    assert renyi.low < renyi.value < renyi.high
    assert found_by(letters)["token_ratio"].low == found_by(letters)["token_ratio"].high == 1


def test_one_document_has_no_interval():
    found = found_by(pairs, TEXTS[:1])
    assert found["tokens_per_word"].low is None
    assert found["renyi_efficiency"].low is None


def test_text_without_spaces_has_measures_of_characters_only():
    found = found_by(letters, ["ภาษาไทย", "ไม่มีวรรค"])
    assert "tokens_per_character" in found
    assert not {"tokens_per_word", "continued_words", "one_token_words"} & set(found)


def test_boundary_f1_by_hand():
    """Hits 3, token boundaries 4, morpheme boundaries 6; without the unsplit word 6 - 1."""
    counts = np.array([[2, 3, 3], [0, 0, 1], [1, 1, 2]])
    found = boundary_measures(counts, 1)
    assert found["boundary_f1"].value == 2 * 3 / (4 + 6)
    assert found["boundary_f1_split"].value == 2 * 3 / (4 + 5)
    assert found["boundary_f1"].n == 3
    assert "boundary_f1_split" not in boundary_measures(np.array([[0, 0, 1]]), 1)


def test_parity_is_relative_to_the_first_language():
    tokens = {"en": np.array([10, 20]), "ru": np.array([15, 30]), "th": np.array([40, 20])}
    found = parity_measures(tokens, 1)
    assert {name: m.value for name, m in found.items()} == {"parity/ru": 1.5, "parity/th": 2}
    assert found["parity/ru"].low == found["parity/ru"].high == 1.5
    assert found["parity/th"].low < found["parity/th"].high


def test_rare_tokens_are_those_seen_less_than_a_hundred_times():
    assert rare_measure(np.array([0, 99, 100, 5000]))["rare_tokens"].value == 2
