"""Word types of a text with their counts, cut as a base tokenizer cuts text before its merges.

Vocabularies of the sentencepiece type have no such cut: a whole line is one word. There words are
cut before U+2581, the mark of a space, where the base cannot merge across: no token has the mark
after that character. Merges on either side of such a place are independent of each other (a merge
across would make a token with both characters), so the words together have the ids of the line.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import regex

from hpc_llm.tokenizer.sample import SPACE, chunks_of
from hpc_llm.vocabulary.bpe.tables import BpeTables

__all__ = ["count_tokens", "count_words", "word_cutter"]


def word_cutter(backend: Any, tables: BpeTables) -> Callable[[str], Iterator[str]]:
    """Return the function from a text to its words, as `backend`, a `tokenizers.Tokenizer`, cuts.

    Words are spelled as tokens are: letters for bytes, or U+2581 for spaces.
    """
    normalizer, pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    at_marks = None if tables.byte_level else _before_marks(tables).split

    def cut(text: str) -> Iterator[str]:
        normal = text if normalizer is None else normalizer.normalize_str(text)
        parts = (
            [(normal, None)] if pre_tokenizer is None else pre_tokenizer.pre_tokenize_str(normal)
        )
        for part, _ in parts:
            yield from (part,) if at_marks is None else filter(None, at_marks(part))

    return cut


def _before_marks(tables: BpeTables) -> Any:
    """Return the pattern of the places where words are cut: before a mark that no token joins."""
    inside = regex.compile(rf"[^{SPACE}](?={SPACE})")
    joined = {found[0] for token in tables.vocab for found in inside.finditer(token)}
    letters = "".join(map(regex.escape, sorted(joined)))
    return regex.compile(rf"(?<=[^{SPACE}{letters}])(?={SPACE})")


def count_words(texts: Iterable[str], backend: Any, tables: BpeTables) -> Counter[str]:
    """Return the counts of the words of `texts`.

    Texts are cut in chunks of whole lines (see `chunks_of`), so memory grows with the number of
    different words only. A tokenizer that puts a space before each text does not get the space
    before which a chunk was cut.
    """
    cut = word_cutter(backend, tables)
    prepends = next(cut("a")) != "a"
    counts: Counter[str] = Counter()
    for text in texts:
        for place, chunk in enumerate(chunks_of(text)):
            counts.update(cut(chunk.removeprefix(" ") if prepends and place else chunk))
    return counts


def count_tokens(tables: BpeTables, words: Mapping[str, int]) -> Counter[str]:
    """Return how often each token of `tables` occurs in `words` with counts."""
    model = tables.model()
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for token in model.tokenize(word):
            counts[token.value] += count
    return counts
