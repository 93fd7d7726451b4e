"""clean: gopher: the quality rules of Gopher on documents (Rae et al. 2021, arXiv 2112.11446,
section A.1.1), with thresholds from `corpus.gopher`. The text is not changed."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hpc_llm.corpus.languages import known_languages
from hpc_llm.corpus.rules import Filter, Outcome
from hpc_llm.corpus.word_lists import read_words
from hpc_llm.corpus.words import words_of
from hpc_llm.errors import UserError
from hpc_llm.settings import CorpusSettings
from hpc_llm.settings.cleaning import GopherSettings

__all__ = ["build"]

ELLIPSES = ("...", "…")
BULLETS = ("•", "-")


class _Document(NamedTuple):
    text: str
    words: list[str]
    lines: list[str]

    @property
    def mean_word(self) -> float:
        """Mean length of a word in characters."""
        return sum(map(len, self.words)) / len(self.words)

    @property
    def ellipses(self) -> int:
        """Ellipses in the text."""
        return sum(map(self.text.count, ELLIPSES))

    @property
    def lettered(self) -> int:
        """Words with a letter."""
        return sum(1 for word in self.words if word.isalpha() or any(map(str.isalpha, word)))

    @property
    def bullets(self) -> int:
        """Lines that begin with a bullet."""
        return sum(1 for line in self.lines if line.lstrip().startswith(BULLETS))

    @property
    def cut_lines(self) -> int:
        """Lines that end with an ellipsis."""
        return sum(1 for line in self.lines if line.rstrip().endswith(ELLIPSES))


Check = tuple[str, Callable[[_Document], bool]]
"""Name of a rule, and whether a document breaks it."""


def _checks(gopher: GopherSettings, stop_words: frozenset[str]) -> Sequence[Check]:
    """Return the rules in order; the first drops documents without words."""
    (fewest, most), (shortest, longest) = gopher.words, gopher.mean_word
    return (
        ("few_words", lambda one: len(one.words) < max(1, fewest)),
        ("many_words", lambda one: len(one.words) > most),
        ("short_words", lambda one: one.mean_word < shortest),
        ("long_words", lambda one: one.mean_word > longest),
        ("hashes", lambda one: one.text.count("#") > gopher.symbol_ratio * len(one.words)),
        ("ellipses", lambda one: one.ellipses > gopher.symbol_ratio * len(one.words)),
        ("bullets", lambda one: one.bullets > gopher.bullet_lines * len(one.lines)),
        ("ellipsis_lines", lambda one: one.cut_lines > gopher.ellipsis_lines * len(one.lines)),
        ("letters", lambda one: one.lettered < gopher.letter_words * len(one.words)),
        (
            "stop_words",
            lambda one: len(stop_words & set(map(str.lower, one.words))) < gopher.stop_words,
        ),
    )


def _stop_words(settings: CorpusSettings) -> frozenset[str]:
    """Return the stop words to look for. Raises `UserError` if the languages have no list."""
    gopher, keep = settings.gopher, settings.language.keep
    if gopher.stop_words == 0:
        return frozenset()
    if gopher.stop_words_file is not None:
        return frozenset(read_words("corpus.gopher.stop_words_file", gopher.stop_words_file))
    languages = known_languages(settings.language)
    for code, language in zip(keep, languages, strict=True):
        if not language.stop_words:
            fix = "set corpus.gopher.stop_words_file=FILE, or corpus.gopher.stop_words=0"
            raise UserError("corpus.language.keep", code, "has no list of stop words", fix)
    if not keep:
        rule = "clean=gopher needs the language of its stop words"
        fix = "set corpus.language.keep=[ru], or corpus.gopher.stop_words=0"
        raise UserError("corpus.language.keep", "[]", rule, fix)
    return frozenset().union(*(language.stop_words for language in languages))


def build(settings: CorpusSettings) -> Filter:
    """Return the filter of `corpus.gopher`.

    Raises `UserError` if there are no stop words for the languages of the text.
    """
    checks = _checks(settings.gopher, _stop_words(settings))

    def outcome(text: str) -> Outcome:
        document = _Document(text, words_of(text), text.splitlines())
        return Outcome(text, next((name for name, broken in checks if broken(document)), None))

    return outcome
