"""Counts and measures of a tokenizer on held-out text: fertility, compression, unsplit words.

Vocabularies are compared on equal text only; their token ratio gives training time, generation
time and key-value cache for that text (tokens per second do not compare across vocabularies).
`hpc_llm.evaluation.tokenizers` adds confidence intervals.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpc_llm.tokenizer.text import Encode
from hpc_llm.tokenizer.words import is_spaced, letter_words

__all__ = ["RATIOS", "Counts", "Decode", "Ratio", "compare", "count_tokens", "measure"]

Decode = Callable[[list[list[int]]], list[str]]

FREQUENT_WORDS = 10_000


@dataclass(frozen=True)
class Ratio:
    """A measure that is the ratio of two counts, each summed over the documents."""

    counted: str
    """A key of `Counts.sums`."""
    per: str
    """Another key of it."""
    unit: str
    better: str
    """lower | higher."""


RATIOS = {
    "tokens_per_word": Ratio("tokens", "words", "tokens per word", "lower"),
    "tokens_per_character": Ratio("tokens", "characters", "tokens per character", "lower"),
    "characters_per_token": Ratio("characters", "tokens", "characters per token", "higher"),
    "bytes_per_token": Ratio("bytes", "tokens", "bytes per token", "higher"),
    "continued_words": Ratio("split_words", "letter_words", "share of running words", "lower"),
}
"""Measures by name. `continued_words` is the share of running words that take two tokens or more
(Rust et al. 2021, arXiv 2012.15613)."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a tokenizer makes of a list of documents."""

    ids: list[list[int]]
    """Token ids of each document."""
    sums: Mapping[str, np.ndarray]
    """Counts of each document, int64 (documents,): tokens, characters, bytes; in languages with
    spaces also words (runs between white space), letter_words (runs of letters) and split_words
    (those of two tokens or more)."""
    one_token_words: float | None
    """Share of the 10,000 most frequent words that are one token; None: no spaces."""
    exact: np.ndarray | None
    """Whether each document decodes exactly, bool (documents,); None: not decoded."""

    def ratio(self, ratio: Ratio) -> float | None:
        """Return the value of a measure; None where its counts do not exist or are 0."""
        if ratio.per not in self.sums or not self.sums[ratio.per].any():
            return None
        return float(self.sums[ratio.counted].sum() / self.sums[ratio.per].sum())


def count_tokens(encode: Encode, texts: Sequence[str], decode: Decode | None = None) -> Counts:
    """Encode `texts` and count tokens, characters, bytes and words of each.

    Raises `ValueError` for texts without a word.
    """
    texts = list(texts)
    if not any(map(str.strip, texts)):
        raise ValueError("texts: contain no word; give some text")
    ids = encode(texts)
    sums = {"tokens": [len(one) for one in ids], "characters": [len(text) for text in texts]}
    sums["bytes"] = [len(text.encode()) for text in texts]
    one_token = None
    if is_spaced(texts):
        sums["words"] = [len(text.split()) for text in texts]
        words = letter_words(texts)
        split = _split_words(encode, words)
        sums["letter_words"] = [counts.total() for counts in words]
        sums["split_words"] = [sum(n for w, n in each.items() if w in split) for each in words]
        one_token = _one_token_share(words, split)
    exact = (
        None
        if decode is None
        else np.array([a == b for a, b in zip(decode(ids), texts, strict=True)])
    )
    return Counts(
        ids=ids,
        sums={key: np.array(values, dtype=np.int64) for key, values in sums.items()},
        one_token_words=one_token,
        exact=exact,
    )


def _split_words(encode: Encode, words: Sequence[Counter[str]]) -> set[str]:
    """Return the words that take two tokens or more.

    A word counts with or without the space in front of it: some tokenizers add that space
    themselves.
    """
    known = sorted(set().union(*words))
    inside, alone = encode([f" {word}" for word in known]), encode(known)
    pairs = zip(known, inside, alone, strict=True)
    return {word for word, a, b in pairs if min(len(a), len(b)) > 1}


def _one_token_share(words: Sequence[Counter[str]], split: set[str]) -> float:
    total: Counter[str] = sum(words, Counter())
    frequent = [word for word, _ in total.most_common(FREQUENT_WORDS)]
    return sum(word not in split for word in frequent) / max(1, len(frequent))


def measure(
    encode: Encode, texts: Sequence[str], decode: Decode | None = None
) -> dict[str, float | None]:
    """Return the measures of a vocabulary on `texts`, without intervals.

    Fertility is `tokens_per_word`: None in languages without spaces between words, as every measure
    per word. With `decode`, `round_trip` is the share of texts that decode exactly (it must be 1).
    """
    counts = count_tokens(encode, texts, decode)
    found = {name: counts.ratio(ratio) for name, ratio in RATIOS.items()}
    measures = {"tokens": float(counts.sums["tokens"].sum()), **found}
    measures["share_one_token_words"] = counts.one_token_words
    if counts.exact is not None:
        measures["round_trip"] = float(counts.exact.mean())
    return measures


def compare(
    old: Encode, new: Encode, texts: Sequence[str], decode_new: Decode | None = None
) -> dict[str, Any]:
    """Return `old` and `new` measures on equal texts, and `token_ratio`: new / old tokens."""
    of_old, of_new = measure(old, texts), measure(new, texts, decode_new)
    ratio = (of_new["tokens"] or 0.0) / (of_old["tokens"] or 1.0)
    return {"old": of_old, "new": of_new, "token_ratio": ratio}
