"""Text in Markdown, shown as it is: names and results are data, not markup."""

import re

__all__ = ["code", "text"]

MARKUP = re.compile(r"([\\`*_\[\]<>|~#&!])")
BREAKS = re.compile("[\x00-\x20\x7f-\x9f\u2028\u2029]+")
WORD_INNER = re.compile(r"(?<=\w)\\_(?=\w)")  # no emphasis inside a word: tokens_per_word


def _line(value: object) -> str:
    """Return a value in one line; a no-break space stays."""
    return BREAKS.sub(" ", str(value)).strip(" ")


def text(value: object) -> str:
    """Return a value as text of one line, with every character of markup escaped."""
    line = _line(value)
    return WORD_INNER.sub("_", MARKUP.sub(r"\\\1", line))


def code(value: object) -> str:
    """Return a value as a code span of one line, whatever backticks it holds."""
    line = _line(value)
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if "`" in line else ""
    return f"{ticks}{space}{line}{space}{ticks}"
