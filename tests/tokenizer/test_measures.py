from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer

from hpc_llm.corpus import read_documents
from hpc_llm.settings import CorpusSettings, TokenizerSettings
from hpc_llm.tokenizer import SpecialTokens, compare, measure, train_vocabulary


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
        "characters_per_token": 1,
        "bytes_per_token": 16 / 11,
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
