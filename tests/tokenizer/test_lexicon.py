"""Boundaries of tokens against those of morphemes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from errors import user_error
from transformers import PreTrainedTokenizerFast

from hpc_llm.tokenizer.lexicon import boundary_counts, read_lexicon
from hpc_llm.tokenizer.text import span_encoder

Write = Callable[[str], Path]


@pytest.fixture
def lexicon(tmp_path: Path) -> Write:
    """Writes a lexicon."""

    def write(text: str) -> Path:
        path = tmp_path / "lexicon.tsv"
        path.write_bytes(text.encode())
        return path

    return write


def test_cuts_are_characters_before_inner_boundaries(lexicon: Write) -> None:
    found = read_lexicon(lexicon("\ufeffготовленными\tготов/л/енн/ыми\r\n\nдом\tдом\nдома\tдом/а"))
    assert [(one.word, sorted(one.cuts)) for one in found] == [
        ("готовленными", [5, 6, 9]),
        ("дома", [3]),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("слово", "line 2"),
        ("слово\tслов/а", "слов/а"),
        ("слово\tслов//о", "line 2"),
        ("слово\tслов/о\tx", "line 2"),
    ],
)
def test_a_malformed_line_is_named(lexicon: Write, line: str, said: str) -> None:
    path = lexicon(f"дома\tдом/а\n{line}\n")
    with user_error("tokenizer.lexicon", "line 2", said, value=path):
        read_lexicon(path)


def test_a_lexicon_without_morphemes_and_one_that_is_not_there(lexicon: Write) -> None:
    with user_error("tokenizer.lexicon", "two morphemes"):
        read_lexicon(lexicon("дом\tдом\n"))
    with user_error("tokenizer.lexicon", "No such file"):
        read_lexicon(Path("missing.tsv"))


def test_boundaries_by_hand(lexicon: Write) -> None:
    """At most four letters a token: only the words' third and fourth letters matter."""

    def spans(texts: list[str]) -> list[list[tuple[int, int]]]:
        ends = [range(0, len(text), 4) for text in texts]
        return [
            [(at, min(at + 4, len(text))) for at in starts]
            for text, starts in zip(texts, ends, strict=True)
        ]

    found = read_lexicon(lexicon("дома\tдом/а\nдомами\tдом/ами\nслово\tслов/о\n"))
    # дома: one token alone. " домами" and "домами" take two; after a space the cut is behind дом.
    # " слово" and "слово" take two; after a space the cut is behind сло, the morpheme's is not.
    assert boundary_counts(spans, found).tolist() == [[0, 0, 1], [1, 1, 1], [0, 1, 1]]


def test_spans_of_real_tokenizers(shared: Path) -> None:
    folder = shared / "data/tokenizers/llama2-32k"
    llama = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    spans = span_encoder(llama)
    assert spans is not None
    word = "интеллект"
    (found,) = spans([word])
    assert {start for start, _ in found} - {0} == {4, 7}  # инте лле кт
