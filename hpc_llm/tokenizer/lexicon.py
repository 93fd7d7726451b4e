"""Morpheme boundaries: how well tokens end where morphemes do, against a segmented lexicon.

A lexicon has one word in each line, a tab, and its morphemes separated by `/`:

    готовленными	готов/л/енн/ыми
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc_llm.errors import UserError
from hpc_llm.tokenizer.text import Spans

__all__ = ["Segmented", "boundary_counts", "read_lexicon"]

KEY = "tokenizer.lexicon"


@dataclass(frozen=True)
class Segmented:
    """A word of two morphemes or more."""

    word: str
    cuts: frozenset[int]
    """Characters before each inner boundary: {5, 6, 9} for готов/л/енн/ыми."""


def read_lexicon(path: Path) -> list[Segmented]:
    """Return the words of two morphemes or more; empty lines and other words are skipped.

    Raises `UserError` with the line number of a malformed line, and for a lexicon without such
    words.
    """
    try:
        lines = path.expanduser().read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        rule = f"cannot be read ({getattr(error, 'strerror', None) or 'it is not UTF-8'})"
        raise UserError(KEY, path, rule, "give a text file of lines WORD<TAB>MOR/PHEMES") from error
    found = [_segmented(line, number, path) for number, line in enumerate(lines, 1) if line.strip()]
    words = [word for word in found if word.cuts]
    if not words:
        rule = "has no word of two morphemes or more"
        raise UserError(KEY, path, rule, "separate the morphemes by /")
    return words


def _segmented(line: str, number: int, path: Path) -> Segmented:
    word, tab, rest = line.rstrip("\r").partition("\t")
    morphemes = rest.split("/")
    if not tab or "\t" in rest:
        rule = f"line {number}: needs a word, one tab and its morphemes"
    elif "".join(morphemes) != word or not all(morphemes):
        rule = f"line {number}: the morphemes {rest!r} do not spell the word {word!r}"
    else:
        ends = np.cumsum([len(morpheme) for morpheme in morphemes])[:-1]
        return Segmented(word, frozenset(ends.tolist()))
    raise UserError(KEY, path, rule, "write WORD<TAB>MOR/PHEMES")


def boundary_counts(spans: Spans, lexicon: list[Segmented]) -> np.ndarray:
    """Return for each word the inner boundaries: (hits, of tokens, of morphemes), int64 (words, 3).

    A word is encoded alone and after a space; the shorter encoding counts (see `measures`).
    """
    words = [one.word for one in lexicon]
    inside, alone = spans([f" {word}" for word in words]), spans(words)
    rows = []
    for one, after_space, bare in zip(lexicon, inside, alone, strict=True):
        shift, chosen = (1, after_space) if len(after_space) <= len(bare) else (0, bare)
        starts = {start - shift for start, _ in chosen} & set(range(1, len(one.word)))
        rows.append((len(starts & one.cuts), len(starts), len(one.cuts)))
    return np.array(rows, dtype=np.int64)
