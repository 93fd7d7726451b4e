"""Words and sentences of a text in any alphabetic script."""

import regex

__all__ = ["count_sentences", "words_of"]

WORD = regex.compile(r"[\w\p{M}]+(?:[-'’][\w\p{M}]+)*")
SENTENCE_END = regex.compile(r"""(?<!\b\p{Lu})[.?!…]+["'»”’)\]]*(?=\s+(?!(?:[—–-]\s*)?\p{Ll})|$)""")
"""Marks at the end of the text, or before white space and no small letter; not after an initial."""


def words_of(text: str) -> list[str]:
    """Return the words of `text` in order: letters, marks and digits, with hyphens inside."""
    return WORD.findall(text)


def count_sentences(text: str) -> int:
    """Return the number of sentences of `text`; a rest without a mark at its end counts as one."""
    ends = end = 0
    for found in SENTENCE_END.finditer(text):
        ends, end = ends + 1, found.end()
    return ends + bool(text[end:].strip())
