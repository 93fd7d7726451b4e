"""Measures of a tokenizer with intervals: the content of `evaluate/tokenizer.json`.

All tokenizers of a run are measured on the same documents and the same resamples of them, so their
differences are not those of the text.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpc_llm.evaluation.bootstrap import SAMPLES, draw_documents, percentiles
from hpc_llm.evaluation.measures import Measure
from hpc_llm.tokenizer.measures import RATIOS, Counts

__all__ = [
    "RARE",
    "Tokenizer",
    "boundary_measures",
    "parity_measures",
    "rare_measure",
    "renyi_efficiency",
    "text_measures",
]

ALPHA = 2.5  # order of the Renyi entropy; the best predictor of BLEU in Zouhar et al. 2023
RARE = 100  # a token seen less often than that in training hardly moves from where it started
CHUNK = 100  # resamples of token counts held at a time


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """A tokenizer under measurement."""

    vocab_size: int
    counts: Counts
    """What it makes of the held-out documents."""


def text_measures(tokenizer: Tokenizer, reference: Counts, seed: int) -> dict[str, Measure]:
    """Return the measures on held-out text; those that the text does not allow are absent.

    `reference` are the counts of the old tokenizer on the same documents: `token_ratio` is
    relative to them. A single document has no interval.
    """
    counts, sums = tokenizer.counts, tokenizer.counts.sums
    documents = len(counts.ids)
    draws = draw_documents(sums["bytes"], SAMPLES, seed) if documents > 1 else None
    pairs = {
        name: (sums[ratio.counted], sums[ratio.per], ratio.unit, ratio.better)
        for name, ratio in RATIOS.items()
        if counts.ratio(ratio) is not None
    }
    old = reference.sums["tokens"]
    pairs["token_ratio"] = (sums["tokens"], old, "tokens / tokens of the old tokenizer", "lower")
    found = {
        name: _ratio(counted, per, draws, unit, better)
        for name, (counted, per, unit, better) in pairs.items()
    }
    found["renyi_efficiency"] = _renyi(tokenizer, draws)
    return found | dict(_of_vocabulary(tokenizer))


def _ratio(
    counted: np.ndarray, per: np.ndarray, draws: np.ndarray | None, unit: str, better: str
) -> Measure:
    """Return sum(counted) / sum(per) over the documents, with its bootstrap interval."""
    low = high = None
    if draws is not None:
        below = draws @ per
        low, high = percentiles((draws @ counted)[below > 0] / below[below > 0])
    value = float(counted.sum() / per.sum())
    return Measure(value=value, low=low, high=high, n=len(per), unit=unit, better=better)


def renyi_efficiency(counts: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return H_a(p) / log(vocab_size), a = 2.5, of token counts (..., tokens) -> (...).

    `H_a = log(sum_i p_i^a) / (1 - a)` with p the distribution of tokens in text: 1 for a
    vocabulary whose tokens are equally frequent (Zouhar et al. 2023, arXiv 2306.16842).
    """
    p = counts / counts.sum(axis=-1, keepdims=True)
    return np.log((p**ALPHA).sum(axis=-1)) / (1 - ALPHA) / math.log(vocab_size)


def _renyi(tokenizer: Tokenizer, draws: np.ndarray | None) -> Measure:
    table = _token_table(tokenizer.counts.ids)
    size = tokenizer.vocab_size
    value = float(renyi_efficiency(np.asarray(table.sum(axis=0)).ravel(), size))
    low = high = None
    if draws is not None:
        parts = [draws[at : at + CHUNK] for at in range(0, len(draws), CHUNK)]
        low, high = percentiles(
            np.concatenate([renyi_efficiency((table.T @ part.T).T, size) for part in parts])
        )
    n, unit = len(tokenizer.counts.ids), f"H{ALPHA:g} / log V"
    return Measure(value=value, low=low, high=high, n=n, unit=unit, better="higher")


def _token_table(ids: Sequence[Sequence[int]]) -> Any:
    """Return the counts of the tokens that occur, sparse (documents, distinct tokens)."""
    from scipy.sparse import csr_array

    places = np.repeat(np.arange(len(ids)), [len(one) for one in ids])
    _, columns = np.unique(np.concatenate([np.asarray(one) for one in ids]), return_inverse=True)
    ones = np.ones(len(columns))
    return csr_array((ones, (places, columns)), shape=(len(ids), columns.max() + 1))


def _of_vocabulary(tokenizer: Tokenizer) -> Iterator[tuple[str, Measure]]:
    """Yield the measures of types: their values depend on the size of the text, no interval."""
    counts, size = tokenizer.counts, tokenizer.vocab_size
    if counts.one_token_words is not None:
        unit, n = "share of the 10,000 most frequent words", int(counts.sums["letter_words"].sum())
        value = counts.one_token_words
        yield "one_token_words", Measure(value=value, n=n, unit=unit, better="higher")
    used, unit = len(set().union(*counts.ids)) / size, "share of the vocabulary that occurs"
    yield "vocabulary_used", Measure(value=used, n=size, unit=unit, better="higher")
    if counts.exact is not None:
        exact = float(counts.exact.mean())
        unit = "share of documents that decode exactly"
        yield "round_trip", Measure(value=exact, n=len(counts.ids), unit=unit, better="higher")


def rare_measure(seen: np.ndarray) -> dict[str, Measure]:
    """Return `rare_tokens`: tokens seen fewer than 100 times in training; `seen` (vocabulary,)."""
    value, unit = float((seen < RARE).sum()), f"tokens seen fewer than {RARE} times in training"
    return {"rare_tokens": Measure(value=value, n=len(seen), unit=unit, better="lower")}


def boundary_measures(counts: np.ndarray, seed: int) -> dict[str, Measure]:
    """Return `boundary_f1`, of all words of a lexicon, and `boundary_f1_split`, of split words.

    `counts` (words, 3) from `tokenizer.lexicon.boundary_counts`. F1 is micro-averaged over inner
    boundaries; intervals are over words.
    """
    found = {}
    rows = {"boundary_f1": counts, "boundary_f1_split": counts[counts[:, 1] > 0]}
    units = ("F1 of inner boundaries", "F1 of inner boundaries of split words")
    for (name, chosen), unit in zip(rows.items(), units, strict=True):
        if len(chosen) == 0:
            continue
        hits, of_both = chosen[:, 0], chosen[:, 1] + chosen[:, 2]
        draws = draw_documents(np.ones(len(chosen)), SAMPLES, seed) if len(chosen) > 1 else None
        found[name] = _ratio(2 * hits, of_both, draws, unit, "higher")
    return found


def parity_measures(tokens: Mapping[str, np.ndarray], seed: int) -> dict[str, Measure]:
    """Return `parity/LANGUAGE`: its tokens / those of the first language for equal content.

    `tokens` by language, int64 (documents,): document i has the same content in each (Petrov et
    al. 2023, arXiv 2305.15425). Empty pairs are left out of the resamples.
    """
    (first, base), *others = tokens.items()
    draws = draw_documents(base, SAMPLES, seed) if len(base) > 1 else None
    return {
        f"parity/{language}": _ratio(
            each, base, draws, f"tokens of {language} / tokens of {first}", "lower"
        )
        for language, each in others
    }
