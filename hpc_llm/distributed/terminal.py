"""Text of files and other programs on a terminal: shown, never obeyed.

A control character in a log, a job's name or a configuration would move the cursor, change the
title or the colours, or hide what follows; a bidirectional override shows other text than it holds.
"""

import re

__all__ = ["visible"]

OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 controls, except tab and line feed
    "\u2028\u2029"  # line and paragraph separator
    "\u202a-\u202e\u2066-\u2069"  # bidirectional embeddings, overrides and isolates
    "\ud800-\udfff]"  # bytes of a file name that are no text
)


IN_URL = re.compile(r"(://[^\s/:@]*):[^\s/@]+@")  # the password of a proxy in a library's error


def visible(text: str) -> str:
    r"""Return `text` with control characters as escapes, `\x1b`; a carriage return ends a line.

    The password of a URL is replaced by `***`.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = IN_URL.sub(r"\1:***@", lines)
    return OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), lines)
