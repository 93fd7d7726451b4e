"""Runs of words as 64-bit hashes: the same run in any text has the same hash.

Words are compared without case, punctuation and white space, in Unicode's normal form C.
"""

import unicodedata
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import regex

__all__ = ["mixed", "normal_words", "runs_of_words"]

WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: the golden ratio of 2^64
MOST_WORDS = 2**20
"""Different words whose hashes are kept in memory (about 150 MB)."""


class _WordHashes(dict[str, int]):
    """Hashes of words; when full it begins again."""

    def __missing__(self, word: str) -> int:
        if len(self) >= MOST_WORDS:
            self.clear()
        value = int.from_bytes(blake2b(word.encode(), digest_size=8).digest())
        self[word] = value
        return value


HASHES = _WordHashes()


def normal_words(text: str) -> list[str]:
    """Return the words of `text`, case-folded, without punctuation."""
    return WORD.findall(unicodedata.normalize("NFC", text).casefold())


def mixed(values: np.ndarray) -> np.ndarray:
    """Return `values` (uint64) through the finaliser of SplitMix64 (Steele et al. 2014): bits that
    look independent, one value for each argument."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def runs_of_words(words: Sequence[str], length: int) -> np.ndarray:
    """Return the hash of each run of `length` words, (max(0, words - length + 1),) uint64."""
    count = len(words) - length + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    hashes = np.fromiter(map(HASHES.__getitem__, words), np.uint64, len(words))
    runs = np.zeros(count, np.uint64)
    for offset in range(length):  # a polynomial in the multiplier, modulo 2^64
        runs = runs * MULTIPLIER + hashes[offset : offset + count]
    return mixed(runs)
