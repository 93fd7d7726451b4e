"""The little cleaning that every document gets; what it says is never changed.

The tokenizer is lossless, so tabs, double spaces and indentation are kept: they are text. Only what
no reader ever sees goes: byte-order marks, control characters, halves of surrogate pairs, which
UTF-8 cannot hold, and white space around the document.
"""

import re

__all__ = ["clean"]

LINE_ENDS = re.compile("\r\n|[\r\v\f\x85]")
UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")


def clean(text: str) -> str:
    """Return `text` with plain newlines, without unseen characters, and without space around it.

    Carriage returns, form feeds and their kin become newlines, so that no two words are glued.
    """
    return UNSEEN.sub("", LINE_ENDS.sub("\n", text)).strip()
