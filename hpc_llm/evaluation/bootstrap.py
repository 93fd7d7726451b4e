"""Confidence intervals: the percentile bootstrap over documents (Efron 1979).

Documents are resampled, not tokens, since the tokens of one document are not independent. Two
metrics on the same documents are compared on the same resamples (paired): what makes a document
hard for both then cancels.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from hpc_llm.errors import UserError

__all__ = [
    "SAMPLES",
    "DocumentLosses",
    "Interval",
    "bits_per_byte",
    "draw_documents",
    "percentiles",
    "resampled_bpb",
]

SAMPLES = 1000
PERCENTILES = (2.5, 97.5)  # 95 %


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class DocumentLosses:
    """The loss of each held-out document: what paired comparisons need."""

    nll: np.ndarray = field(repr=False)
    """Nats of each document, float64 (documents,)."""
    byte_counts: np.ndarray = field(repr=False)
    """UTF-8 bytes of each document, int64 (documents,)."""


def bits_per_byte(nll: np.ndarray, byte_counts: np.ndarray) -> float:
    """Return bits per byte, BPB = sum nll / (ln 2 * bytes), comparable across tokenizers.

    `nll` (documents,) in nats, `byte_counts` (documents,): UTF-8 bytes of the raw texts.
    Raises `UserError` when the documents hold no text, or the shapes differ.
    """
    if len(nll) != len(byte_counts):
        raise UserError(
            "bits per byte",
            None,
            f"{len(nll)} losses for {len(byte_counts)} byte counts",
            "provide one loss and one byte count for every document",
        )
    _check_text(byte_counts)
    return float(np.sum(nll) / (math.log(2) * np.sum(byte_counts)))


def _check_text(byte_counts: np.ndarray) -> None:
    if np.sum(byte_counts) == 0:
        raise UserError(
            "bits per byte",
            None,
            "the held-out documents are empty",
            "use a corpus with more text",
        )


def draw_documents(byte_counts: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Return how often each document is drawn in each resample, float64 (samples, documents).

    As many documents are drawn, with replacement, as have text; empty ones are never drawn.
    Raises `UserError` when no document has text.
    """
    _check_text(byte_counts)
    filled = np.flatnonzero(np.asarray(byte_counts) > 0)
    draws = np.zeros((samples, len(byte_counts)))
    chances = np.full(len(filled), 1 / len(filled))
    draws[:, filled] = np.random.default_rng(seed).multinomial(len(filled), chances, size=samples)
    return draws


def resampled_bpb(nll: np.ndarray, byte_counts: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return the bits per byte of each resample (samples,); `draws` from `draw_documents`."""
    return (draws @ nll) / (math.log(2) * (draws @ byte_counts))


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """Return the bounds of the 95 % interval; both are elements of `values`."""
    low, high = np.percentile(values, PERCENTILES, method="inverted_cdf")
    return float(low), float(high)
