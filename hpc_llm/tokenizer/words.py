"""Words of a text, for languages that separate them by spaces and for those that do not.

Thai, Lao, Khmer, Burmese, Tibetan, Japanese and Chinese are written without spaces between words: a
run of letters there is a clause, and measures per word have no meaning without a dictionary. They
are left out for such texts; tokens per character take their place.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

__all__ = ["is_spaced", "letter_words"]

# Unicode blocks of the scripts that are written without spaces between words
UNSPACED = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Tibetan, Myanmar
    "\u1780-\u17ff"  # Khmer
    "\u1950-\u19ff\u1a20-\u1aaf\uaa80-\uaadf"  # Tai Le, New Tai Lue, Khmer symbols, Tham, Viet
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Hiragana, Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "]"
)


def is_spaced(texts: Sequence[str]) -> bool:
    """Return whether spaces separate the words of `texts`.

    They do unless more than half of the letters belong to scripts without spaces (`UNSPACED`).
    Marks of these scripts, such as vowel signs, count as letters.
    """
    unspaced = letters = 0
    for text in texts:
        found = len(UNSPACED.findall(text))
        unspaced += found
        letters += found + sum(map(str.isalpha, UNSPACED.sub("", text)))
    return 2 * unspaced <= letters


def letter_words(texts: Sequence[str]) -> list[Counter[str]]:
    """Return how often each word occurs in each text; words are runs of letters and their marks."""
    others = {ord(c): " " for c in set().union(*texts) if not _in_word(c)}
    return [Counter(text.translate(others).split()) for text in texts]


def _in_word(character: str) -> bool:
    return character.isalpha() or unicodedata.category(character).startswith("M")
