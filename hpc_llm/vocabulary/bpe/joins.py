"""Which texts may become new tokens: words in given scripts, and what is needed to spell them."""

from collections.abc import Collection, Iterable

from hpc_llm.settings.scripts import script_letter, script_words

__all__ = ["Joins"]


class Joins:
    """The rule for the text of new tokens, by their bytes.

    Allowed is text of letters of the scripts after at most one space (no digits, no punctuation, no
    spaces alone), and at the byte level the first bytes of one such letter, because a letter of
    three bytes takes two merges.
    """

    def __init__(self, scripts: Collection[str], texts: Iterable[str]) -> None:
        """Allow text in `scripts` (Unicode names); `texts` hold the letters that occur."""
        names = tuple(scripts)
        self._words = script_words(names)
        letter = script_letter(names)
        found = {character for text in texts for character in text}
        self.letters = frozenset(character for character in found if letter.match(character))
        self._heads = {
            letter.encode()[:size]
            for letter in self.letters
            for size in range(2, len(letter.encode()))
        }

    def allows(self, surface: bytes) -> bool:
        """Return whether a new token may have the text `surface`."""
        try:
            return self._words.fullmatch(surface.decode()) is not None
        except UnicodeDecodeError:
            return surface in self._heads
