from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer

from hpc_llm.corpus import read_documents
from hpc_llm.settings import CorpusSettings, TokenizerSettings
from hpc_llm.tokenizer import SpecialTokens, compare, measure, train_vocabulary
from hpc_llm.tokenizer.words import is_spaced, letter_words


def letters(texts: list[str]) -> list[list[int]]:
    return [list(map(ord, text)) for text in texts]


def words(texts: list[str]) -> list[list[int]]:
    return [[len(word) for word in text.split()] for text in texts]


def test_letters_and_words() -> None:
    texts = ["ёж и уж", "a bc"]
    figures = measure(letters, texts, lambda ids: ["".join(map(chr, i)) for i in ids])
    assert figures == {
        "tokens": 11,
        "tokens_per_word": 11 / 5,
        "tokens_per_character": 1,
        "characters_per_token": 1,
        "bytes_per_token": 16 / 11,
        "continued_words": 3 / 5,
        "share_one_token_words": 2 / 5,  # "и" and "a"
        "round_trip": 1,
    }
    assert measure(words, texts)["tokens_per_word"] == 1
    assert measure(words, texts)["share_one_token_words"] == 1
    assert measure(words, texts, lambda _: ["ёж и уж", "?"])["round_trip"] == 0.5


def test_comparison_is_on_equal_text() -> None:
    compared = compare(letters, words, ["ab cd", "ef"])
    assert compared["token_ratio"] == 3 / 7
    assert compared["old"]["tokens"] == 7
    assert compared["new"]["tokens"] == 3


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_no_words(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="no word"):
        measure(letters, texts)


def test_running_words_count_as_often_as_they_occur() -> None:
    found = measure(letters, ["a a a bc", "bc, d-d"])
    assert found["continued_words"] == 2 / 7
    assert found["share_one_token_words"] == 2 / 3  # a, bc, d


def test_marks_belong_to_words() -> None:
    """A word of Hindi is one word, although half of its characters are marks and no letters."""
    found = measure(words, ["हिन्दी में", "हिन्दी"])
    assert found["share_one_token_words"] == 1
    assert letter_words(["हिन्दी में हिन्दी!"]) == [{"हिन्दी": 2, "में": 1}]


SPACELESS = [
    "ภาษาไทย ไม่มีวรรค",
    "日本語の文章です。",
    "中文没有空格。",
    "ភាសាខ្មែរ",
    "ဗမာစာ",
    "ພາສາລາວ",
]


@pytest.mark.parametrize("text", SPACELESS)
def test_text_without_spaces_has_no_measure_of_words(text: str) -> None:
    found = measure(letters, [text, f"{text} HPC 2"], lambda _: ["", ""])
    assert not is_spaced([text, f"{text} HPC 2"])
    for name in ("tokens_per_word", "continued_words", "share_one_token_words"):
        assert found[name] is None
    assert found["tokens_per_character"] == 1


@pytest.mark.parametrize(
    "text", ["Это русский текст, 日本語 в нём.", "한국어 문장", "123 456", "हिन्दी"]
)
def test_text_with_spaces_has_words(text: str) -> None:
    assert is_spaced([text])
    assert measure(words, [text])["tokens_per_word"] == 1


def test_a_russian_vocabulary_is_shorter_on_russian(
    shared: Path,
    corpus_settings: CorpusSettings,
    settings: Callable[..., TokenizerSettings],
    tmp_path: Path,
) -> None:
    """Llama-2 has 2.36 to 2.55 characters a token on Russian; even a small own vocabulary more."""
    entry = f"{shared}/data/ru/ru_tinystories.jsonl.gz"
    stories = list(islice(read_documents(entry, corpus_settings), 1200))
    plan = settings(source_share=0, vocab_size=4096)
    model = train_vocabulary(stories[:1000], [], plan, SpecialTokens(), 1, tmp_path)
    processor = SentencePieceProcessor(model_file=str(model))
    llama = AutoTokenizer.from_pretrained(shared / "data/tokenizers/llama2-32k")

    def old(texts: list[str]) -> list[list[int]]:
        return llama(texts, add_special_tokens=False)["input_ids"]

    compared = compare(old, processor.encode, stories[1000:], processor.decode)
    assert 2.0 < compared["old"]["characters_per_token"] < 2.6
    assert compared["token_ratio"] < 0.7
    assert compared["new"]["round_trip"] == 1
    assert compared["new"]["share_one_token_words"] > 0.4
    assert compared["old"]["share_one_token_words"] < 0.1
