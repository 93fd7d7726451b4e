"""Minimal cleaning of every document; visible text is never changed.

The tokenizer is lossless, so tabs, double spaces and indentation are kept: they are text. Removed
are byte-order marks, control characters, unpaired surrogates (not encodable in UTF-8), and white
space around the document.
"""

import re

__all__ = ["clean", "count_invisible"]

LINE_ENDS = re.compile("\r\n|[\r\v\f\x85]")
INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")


def clean(text: str) -> str:
    """Return `text` with plain newlines, without invisible characters, stripped.

    Carriage returns, form feeds and other line breaks become newlines, so that words stay apart.
    """
    return INVISIBLE.sub("", LINE_ENDS.sub("\n", text)).strip()


def count_invisible(text: str) -> int:
    """Return the number of invisible characters that `clean` removes from `text`."""
    return sum(1 for _ in INVISIBLE.finditer(text))
