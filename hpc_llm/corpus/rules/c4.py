"""clean: c4: the heuristics of C4 on lines and pages (Raffel et al. 2020, JMLR 21:140, section 2).

A line that breaks a line rule is removed; a document ("page") that breaks a page rule is dropped.
As in the published code, page rules look only at lines that no earlier rule removes, in this order:
long_word, terminal_mark, few_words, lorem_ipsum (page), javascript, brace (page), policy. Text that
is laid out in short lines without full stops (verse, code, tables) does not survive these rules.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from hpc_llm.corpus.rules import Filter, Outcome
from hpc_llm.corpus.word_lists import read_words
from hpc_llm.corpus.words import count_sentences
from hpc_llm.settings import CorpusSettings
from hpc_llm.settings.cleaning import C4Settings

__all__ = ["build"]

CITATION = re.compile(
    r"\[\d*\]|\[edit\]|\[citation needed\]|\[править[^\[\]]*\]|\[источник не указан[^\[\]]*\]"
)
POLICIES = (
    *("terms of use", "privacy policy", "cookie policy"),
    *("uses cookies", "use of cookies", "use cookies"),
    *("политика конфиденциальности", "политику конфиденциальности"),
    *("политикой конфиденциальности", "политики конфиденциальности"),
    *("пользовательское соглашение", "пользовательского соглашения"),
    *("пользовательским соглашением", "обработку персональных данных"),
    *("файлы cookie", "файлов cookie", "использует cookie"),
)
HTML = re.compile("<div|</|&nbsp;")
PAGE_RULES = ("lorem_ipsum", "brace")


class _Line(NamedTuple):
    text: str
    """Without citations."""
    words: list[str]
    """Of the line as it was, as in the published code."""
    lower: str


def _line_rules(c4: C4Settings) -> list[tuple[str, Callable[[_Line], bool]]]:
    """Return the rules that are on, in order: name and whether a line breaks the rule."""
    marks, longest = tuple(c4.terminal_marks or ()), c4.longest_word
    rules: list[tuple[object, str, Callable[[_Line], bool]]] = [
        (longest, "long_word", lambda line: max(map(len, line.words), default=0) > longest),
        (marks, "terminal_mark", lambda line: not line.text.endswith(marks)),
        (not c4.ellipsis_lines, "terminal_mark", lambda line: line.text.endswith("...")),
        (True, "few_words", lambda line: len(line.words) < c4.min_words_in_line),
        (c4.lorem_ipsum, "lorem_ipsum", lambda line: "lorem ipsum" in line.lower),
        (c4.javascript, "javascript", lambda line: "javascript" in line.lower),
        (c4.braces, "brace", lambda line: "{" in line.text),
        (c4.policies, "policy", lambda line: any(one in line.lower for one in POLICIES)),
    ]
    return [(name, broken) for on, name, broken in rules if on]


def _page_rules(c4: C4Settings) -> list[tuple[str, Callable[[str], bool]]]:
    """Return the rules on whole pages that are on: name and whether a text breaks the rule."""
    rules: list[tuple[str, Callable[[str], bool]]] = []
    if c4.html_lines:
        rules.append(("html", lambda text: _html_lines(text) >= c4.html_lines))
    if c4.bad_words is not None:
        rules.append(("bad_words", _bad_words(c4, c4.bad_words)))
    return rules


def _html_lines(text: str) -> int:
    return sum(1 for line in text.splitlines() if HTML.search(line)) if HTML.search(text) else 0


def _bad_words(c4: C4Settings, file: str) -> Callable[[str], bool]:
    """Return whether a text has more words of `file` than are allowed."""
    words = sorted(read_words("corpus.c4.bad_words", file), key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)")

    def found(text: str) -> bool:
        allowed = c4.bad_words_per_1000 * len(text.split()) / 1000 if c4.bad_words_per_1000 else 0
        return sum(1 for _ in pattern.finditer(text.casefold())) > allowed

    return found


def build(settings: CorpusSettings) -> Filter:
    """Return the filter of `corpus.c4`. Raises `UserError` for an unreadable list of words."""
    c4, line_rules, page_rules = settings.c4, _line_rules(settings.c4), _page_rules(settings.c4)

    def broken_by(text: str) -> tuple[str, str | None]:
        """Return a line without citations, and the first rule that it breaks."""
        short = CITATION.sub("", text) if c4.citations and "[" in text else text
        line = _Line(short, text.split(), short.lower())
        return short, next((name for name, broken in line_rules if broken(line)), None)

    def outcome(text: str) -> Outcome:
        page = next((name for name, broken in page_rules if broken(text)), None)
        if page is not None:
            return Outcome(text, page)
        kept, removed = [], []
        for line in map(str.strip, text.splitlines()):
            short, rule = broken_by(line)
            if rule in PAGE_RULES:
                return Outcome(text, rule)
            if rule is None:
                kept.append(short)
            elif line:
                removed.append((rule, line))
        return _rest(text, kept, removed, c4)

    return outcome


def _rest(text: str, kept: list[str], removed: list[tuple[str, str]], c4: C4Settings) -> Outcome:
    """Return the outcome of a page from its lines, unless too little is kept."""
    if sum(map(count_sentences, kept)) < c4.min_sentences:
        return Outcome(text, "few_sentences")
    rest = "\n".join(kept).strip()
    if len(rest) < c4.min_share * len(text):
        return Outcome(text, "little_left")
    return Outcome(rest, removed=removed)
