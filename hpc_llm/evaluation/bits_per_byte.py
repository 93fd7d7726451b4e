"""Bits per byte (BPB) of held-out text: the only loss that is comparable across tokenizers.

BPB = sum nll / (ln 2 * UTF-8 bytes of the raw text). Whole documents are scored in a sliding
window: every token once, with as much left context as the window gives. The first token of a
document is predicted from BOS (EOS for a tokenizer without BOS); EOS is not scored, since it
encodes no bytes. The rule is the same for every tokenizer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from hpc_llm.accounting.inference import CHUNK_LOGITS, LOGITS
from hpc_llm.evaluation.bootstrap import (
    SAMPLES,
    DocumentLosses,
    bits_per_byte,
    draw_documents,
    percentiles,
    resampled_bpb,
)
from hpc_llm.evaluation.dealing import dealt
from hpc_llm.evaluation.inference import (
    device_for,
    idle_pass,
    inference,
    is_partitioned,
    positions_of,
)
from hpc_llm.settings import EvaluationSettings

__all__ = [
    "Bpb",
    "Scoring",
    "ScoringWindow",
    "bits_per_byte",
    "document_nll",
    "document_scoring",
    "document_windows",
    "measure_bpb",
    "measure_bpb_of_each",
    "pooled",
    "score",
    "window_of",
]

UNSCORED = -100  # a target that cross_entropy ignores


@dataclass(frozen=True)
class ScoringWindow:
    """Inputs `begin` to `end` of a document, of which those from `scored` on predict a token."""

    document: int
    begin: int
    scored: int
    end: int

    @property
    def length(self) -> int:
        """Tokens that the model sees."""
        return self.end - self.begin


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Sequences to score with a model; their windows are batched with each other only."""

    sequences: list[list[int]]
    """Token ids."""
    windows: list[ScoringWindow]
    """Prediction i of a sequence is of its token i + 1."""
    during: Callable[[], AbstractContextManager[object]] = nullcontext
    """Entered around each forward pass, for example to scale adapters."""


@dataclass(frozen=True, kw_only=True)
class Bpb(DocumentLosses):
    """Bits per byte with a 95 % bootstrap interval over documents."""

    value: float
    low: float
    high: float
    bytes: int
    """UTF-8 bytes of all documents."""


def measure_bpb(
    model: torch.nn.Module,
    encode: Callable[[list[str]], list[list[int]]],
    texts: Sequence[str],
    settings: EvaluationSettings,
    first_token: int | None,
    seed: int,
) -> Bpb:
    """Return the bits per byte of `model` on `texts`, one document each.

    `encode` turns texts into token ids without special tokens; `first_token` precedes each
    document (see `document_nll`); `seed` is that of the bootstrap. One document gives no
    interval: low and high then equal the value. Raises `UserError` when there is no text.
    """
    return measure_bpb_of_each(model, encode, {"": texts}, settings, first_token, seed)[""]


def measure_bpb_of_each(
    model: torch.nn.Module,
    encode: Callable[[list[str]], list[list[int]]],
    texts: Mapping[str, Sequence[str]],
    settings: EvaluationSettings,
    first_token: int | None,
    seed: int,
) -> dict[str, Bpb]:
    """Return `measure_bpb` of the texts of each language; ranks share the work (collective)."""
    scorings = [
        document_scoring(model, encode(list(own)), settings, first_token) for own in texts.values()
    ]
    losses = score(model, scorings, settings.batch_tokens)
    return {
        language: _with_interval(nll, _sizes(own), seed)
        for (language, own), nll in zip(texts.items(), losses, strict=True)
    }


def pooled(parts: Sequence[DocumentLosses], seed: int) -> Bpb:
    """Return the bits per byte of the documents of several texts together."""
    nll = np.concatenate([part.nll for part in parts])
    return _with_interval(nll, np.concatenate([part.byte_counts for part in parts]), seed)


def _sizes(texts: Sequence[str]) -> np.ndarray:
    return np.array([len(text.encode()) for text in texts], dtype=np.int64)


def _with_interval(nll: np.ndarray, byte_counts: np.ndarray, seed: int) -> Bpb:
    value = bits_per_byte(nll, byte_counts)
    draws = draw_documents(byte_counts, SAMPLES, seed)
    low, high = percentiles(resampled_bpb(nll, byte_counts, draws))
    return Bpb(
        value=value,
        low=low,
        high=high,
        bytes=int(byte_counts.sum()),
        nll=nll,
        byte_counts=byte_counts,
    )


def document_nll(
    model: torch.nn.Module,
    encoded: list[list[int]],
    settings: EvaluationSettings,
    first_token: int | None,
) -> np.ndarray:
    """Return the negative log-likelihood of each document in nats, float64 (documents,).

    `model` is called like a causal model of transformers, in evaluation mode and without
    gradients, on the device of its parameters; it may be a `PeftModel`. `encoded` holds token ids
    without special tokens. The first token is predicted from `first_token`; None: nothing precedes
    a document and its first token is not scored. An empty document has 0 nats. Collective: the
    ranks share the forward passes, and each gets all results.
    """
    scoring = document_scoring(model, encoded, settings, first_token)
    return score(model, [scoring], settings.batch_tokens)[0]


def document_scoring(
    model: torch.nn.Module,
    encoded: list[list[int]],
    settings: EvaluationSettings,
    first_token: int | None,
    during: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Scoring:
    """Return the scoring of whole documents; arguments as in `document_nll`."""
    sequences = encoded if first_token is None else [[first_token, *ids] for ids in encoded]
    window = window_of(model, settings)
    windows = document_windows([len(ids) - 1 for ids in sequences], window, settings.stride)
    return Scoring(sequences=sequences, windows=windows, during=during)


def window_of(model: torch.nn.Module, settings: EvaluationSettings) -> int:
    """Return the predictions of a window: `settings.window`, at most the model's positions."""
    return min(settings.window, positions_of(model) or settings.window)


def score(
    model: torch.nn.Module, scorings: Sequence[Scoring], batch_tokens: int
) -> list[np.ndarray]:
    """Return the nats that the windows of each sequence score in total (collective).

    One float64 array (sequences,) for each scoring. Windows are batched by length, with at most
    `batch_tokens` tokens in a forward pass. Batches are dealt to the ranks.
    """
    tokens = min(batch_tokens, LOGITS // model.config.get_text_config().vocab_size)
    batches = [(own, batch) for own in scorings for batch in _batches(own.windows, tokens)]

    def compute(item: tuple[Scoring, list[ScoringWindow]]) -> np.ndarray:
        with item[0].during():
            return _batch_nll(model, item[0].sequences, item[1])

    idle = (lambda: idle_pass(model)) if is_partitioned(model) else None
    with inference(model):
        losses = dealt(batches, compute, idle)
    nll = {id(own): np.zeros(len(own.sequences)) for own in scorings}
    for (own, batch), found in zip(batches, losses, strict=True):
        np.add.at(nll[id(own)], [w.document for w in batch], found)
    return [nll[id(own)] for own in scorings]


def document_windows(predictions: Sequence[int], window: int, stride: int) -> list[ScoringWindow]:
    """Return the windows that score each of a document's `predictions[i]` predictions once.

    The first window scores all its tokens, each later one its last `stride` tokens; the last
    window is moved back so that it is full too. A stride above `window` counts as `window`.
    """
    stride = min(stride, window)
    windows = []
    for document, count in enumerate(predictions):
        scored = 0
        while scored < count:
            end = min(count, scored + stride if scored else window)
            windows.append(ScoringWindow(document, max(0, end - window), scored, end))
            scored = end
    return windows


def _batches(windows: list[ScoringWindow], batch_tokens: int) -> Iterator[list[ScoringWindow]]:
    """Yield windows of similar length, at most `batch_tokens` tokens including padding."""
    batch: list[ScoringWindow] = []
    for window in sorted(windows, key=lambda w: w.length, reverse=True):
        if batch and (len(batch) + 1) * batch[0].length > batch_tokens:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _batch_nll(
    model: torch.nn.Module, sequences: list[list[int]], batch: list[ScoringWindow]
) -> np.ndarray:
    """Return the nats of each window of a batch, float64 (windows,).

    Short windows are padded on the right, without an attention mask: in a causal model no
    position attends to its right, so padding reaches no scored token.
    """
    shape = (len(batch), max(w.length for w in batch))
    inputs, targets = np.zeros(shape, np.int64), np.full(shape, UNSCORED, np.int64)
    for row, w in enumerate(batch):
        ids = sequences[w.document]
        inputs[row, : w.length] = ids[w.begin : w.end]
        targets[row, w.scored - w.begin : w.length] = ids[w.scored + 1 : w.end + 1]
    device = device_for(model)
    logits = model(input_ids=torch.from_numpy(inputs).to(device), use_cache=False).logits
    losses = _token_nll(logits.flatten(0, 1), torch.from_numpy(targets).to(device).flatten())
    return losses.view(shape).sum(1, dtype=torch.float64).cpu().numpy()


def _token_nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return fp32 nats (tokens,) of `targets` (tokens,) under `logits` (tokens, vocab).

    The log-softmax is taken in fp32, over a chunk of tokens at a time: a second, wider copy of all
    logits would be the largest tensor of the evaluation.
    """
    rows = max(1, CHUNK_LOGITS // logits.shape[-1])
    return torch.cat(
        [
            cross_entropy(chunk.float(), target, ignore_index=UNSCORED, reduction="none")
            for chunk, target in zip(logits.split(rows), targets.split(rows), strict=True)
        ]
    )
