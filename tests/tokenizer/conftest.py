from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpc_llm.corpus import read_documents
from hpc_llm.settings import CorpusSettings, TokenizerSettings
from hpc_llm.tokenizer import SpecialTokens, train_vocabulary

CORPUS = CorpusSettings(
    target=[],
    source=[],
    texts={},
    text_field="text",
    text_fields={},
    hub_split="train",
    min_characters=1,
    max_documents=None,
    test_documents=1,
    tune_documents=1,
    max_heldout_share=0.5,
)
NASTY = [
    *("", " ", "\n", "\t", "\n\n\n", "  a  b ", " a", "a ", "\ta\t\tb", "\n a\n  b", "a \n b"),
    *("<0x0A>", "<0xFF>x<0x41>", "1234567890", "3.14", "№ 5", "x=-1", "a" * 3000, " " * 300),
    *("😀", "👨‍👩‍👧 né", "日本語 текст", "e\u0301", "й и\u0306", "\u00a0nbsp\u2009\u3000", "سلام"),
    *("def f():\n    return 1\n", "x\u2028y", "\ufdfa", "\u200b", "ß ẞ", "𝔘𝔫𝔦", "\ue000\uffff"),
    *("Привет,  мир!\n\n\tИ ещё", "Ёлка-палка… «да» — „нет“", "unk bos eos", "a<b>c</b>"),
]
"""Texts in which a tokenizer that normalises, strips or guesses loses something."""


@pytest.fixture(scope="session")
def sample() -> dict[str, list[str]]:
    """The sample corpus in both languages."""
    return {lang: list(read_documents(f"sample:{lang}", CORPUS)) for lang in ("ru", "en")}


@pytest.fixture(scope="session")
def corpus_settings() -> CorpusSettings:
    """Settings with which any file is read."""
    return CORPUS


@pytest.fixture(scope="session")
def settings() -> Callable[..., TokenizerSettings]:
    """Settings of a small vocabulary; keywords replace them."""

    def build(**changes: Any) -> TokenizerSettings:
        values: dict[str, Any] = {
            "path": None,
            "max_piece_characters": 16,
            "model_type": "unigram",
            "vocab_size": 1024,
            "source_share": 0.2,
            "max_characters": 10_000_000,
            "threads": 2,
            "special_strings": "text",
        }
        return TokenizerSettings(**values | changes)

    return build


@pytest.fixture(scope="session", params=["unigram", "bpe"])
def vocabulary(
    request: pytest.FixtureRequest,
    sample: dict[str, list[str]],
    settings: Callable[..., TokenizerSettings],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A vocabulary of 1,024 pieces, trained on the sample."""
    folder = tmp_path_factory.mktemp(request.param)
    plan = settings(model_type=request.param)
    return train_vocabulary(sample["ru"], sample["en"], plan, SpecialTokens(), 1, folder)


@pytest.fixture(scope="session")
def nasty() -> list[str]:
    """Texts in which a tokenizer that normalises, strips or guesses loses something."""
    return NASTY
