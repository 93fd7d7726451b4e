"""Tokenizer metrics: fertility (tokens per word), compression and the share of unsplit words.

Vocabularies are compared on equal text only; their token ratio gives training time, generation
time and key-value cache for that text (tokens per second do not compare across vocabularies).
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from hpc_llm.tokenizer.text import Encode

__all__ = ["Decode", "compare", "measure"]

Decode = Callable[[list[list[int]]], list[str]]

FREQUENT_WORDS = 10_000
LETTERS = re.compile(r"[^\W\d_]+")


def _one_token_share(encode: Encode, texts: list[str]) -> float:
    """Return the share of the 10,000 most frequent words (runs of letters) that are one token.

    A word counts with or without the space in front of it: some tokenizers add that space
    themselves.
    """
    counts = Counter(word for text in texts for word in LETTERS.findall(text))
    words = [word for word, _ in counts.most_common(FREQUENT_WORDS)]
    inside = encode([f" {word}" for word in words])
    alone = encode(words)
    whole = sum(min(map(len, pair)) == 1 for pair in zip(inside, alone, strict=True))
    return whole / max(1, len(words))


def measure(encode: Encode, texts: list[str], decode: Decode | None = None) -> dict[str, float]:
    """Return the metrics of a vocabulary on `texts`; words are separated by white space.

    Fertility is `tokens_per_word`. With `decode`, `round_trip` is the share of texts that decode
    exactly (it must be 1). Raises `ValueError` when the texts have no word.
    """
    words = sum(len(text.split()) for text in texts)
    if not words:
        raise ValueError("texts: contain no word; give some text")
    ids = encode(texts)
    tokens = sum(map(len, ids))
    metrics = {
        "tokens": float(tokens),
        "tokens_per_word": tokens / words,
        "characters_per_token": sum(map(len, texts)) / tokens,
        "bytes_per_token": sum(len(text.encode()) for text in texts) / tokens,
        "share_one_token_words": _one_token_share(encode, texts),
    }
    if decode is not None:
        same = sum(a == b for a, b in zip(decode(ids), texts, strict=True))
        metrics["round_trip"] = same / len(texts)
    return metrics


def compare(
    old: Encode, new: Encode, texts: list[str], decode_new: Decode | None = None
) -> dict[str, Any]:
    """Return `old` and `new` metrics on equal texts, and `token_ratio`: new / old tokens."""
    of_old, of_new = measure(old, texts), measure(new, texts, decode_new)
    return {"old": of_old, "new": of_new, "token_ratio": of_new["tokens"] / of_old["tokens"]}
