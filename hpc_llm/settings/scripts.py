"""Unicode scripts by name: Cyrillic, Latin, Georgian, Thai, Han, ...

The names are those of the Unicode property `Script` (UAX 24), as the package `regex` knows them.
"""

from collections.abc import Collection
from functools import cache
from typing import Any

import regex

from hpc_llm.errors import UserError

__all__ = ["require_scripts", "script_letter", "script_words"]

FOLLOWERS = r"[\p{M}\p{Lm}\u200c\u200d]"  # accents, lengthening marks, joiners: of any script


def require_scripts(key: str, names: Collection[str]) -> None:
    """Raise `UserError` for an empty list and for a name that Unicode does not have."""
    if not names:
        raise UserError(key, "[]", "must name at least one script", "use [Cyrillic], say")
    for name in names:
        try:
            known = name.replace("_", "").isalpha() and regex.compile(rf"\p{{Script={name}}}")
        except regex.error:
            known = None
        if not known:
            rule, fix = "is no script of Unicode", "use its English name: Cyrillic, Latin, Thai"
            raise UserError(key, name, rule, fix)


def _letter(names: Collection[str]) -> str:
    scripts = "".join(rf"\p{{Script={name}}}" for name in names)
    return rf"(?!\p{{N}})[{scripts}]"


@cache
def script_letter(names: tuple[str, ...]) -> Any:
    """Return the pattern of one character of the scripts `names`; digits are none."""
    return regex.compile(_letter(names))


@cache
def script_words(names: tuple[str, ...]) -> Any:
    """Return the pattern of text in the scripts `names`: an optional space, then letters.

    Combining marks, modifier letters and joiners may follow a letter, whatever their script.
    """
    return regex.compile(rf" ?(?:{_letter(names)}{FOLLOWERS}*)+")
