"""The score of a continuation after a prompt, batched.

`S(c) = sum_t log P(c_t | p, c_<t)` over the tokens that carry the continuation c, from one encoding
of p + c: a token that straddles the border counts wholly. BOS precedes the prompt, as in bits per
byte. A prompt that does not fit into the window with c is cut on the left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import PreTrainedTokenizerBase

from hpc_llm.evaluation.bits_per_byte import (
    Scoring,
    ScoringWindow,
    document_windows,
    score,
    window_of,
)
from hpc_llm.evaluation.dealing import dealt
from hpc_llm.settings import EvaluationSettings
from hpc_llm.vocabulary.surfaces import Surface, surfaces

__all__ = ["Score", "Scorer"]

IMPOSSIBLE = 1e30  # nats of a choice with probability 0; JSON has no infinity


@dataclass(frozen=True)
class Score:
    """The score of a continuation."""

    nats: float
    """S(c), at most 0; NaN if the model's output is."""
    cut: bool
    """Whether its prompt was cut to fit into the window."""


@dataclass(frozen=True)
class _Encoded:
    """Different requests to score together."""

    sequences: list[list[int]]
    windows: list[ScoringWindow]
    cut: list[bool]  # of each request


@dataclass(frozen=True)
class Scorer:
    """A model with its tokenizer."""

    model: torch.nn.Module
    """Called like a causal model of transformers."""
    tokenizer: PreTrainedTokenizerBase
    encode: Callable[[list[str]], list[list[int]]]
    """From texts to ids without special tokens."""
    first_token: int | None
    """Token before a prompt (see `document_nll`)."""
    settings: EvaluationSettings

    def scores(self, requests: Sequence[tuple[str, str]]) -> list[Score]:
        """Return the score of each (prompt, continuation); equal ones are scored once."""
        return self.scores_of_each([requests])[0]

    def scores_of_each(self, groups: Sequence[Sequence[tuple[str, str]]]) -> list[list[Score]]:
        """Return the scores of groups of requests, each batched alone (collective).

        Encoding and forward passes are dealt to the ranks.
        """
        unique = [list(dict.fromkeys(requests)) for requests in groups]
        encoded = dealt(unique, self._encode)
        scorings = [Scoring(sequences=own.sequences, windows=own.windows) for own in encoded]
        losses = score(self.model, scorings, self.settings.batch_tokens)
        found = []
        for requests, own, first, nll in zip(groups, encoded, unique, losses, strict=True):
            scores = {
                request: Score(-min(float(nats), IMPOSSIBLE), was_cut)
                for request, nats, was_cut in zip(first, nll, own.cut, strict=True)
            }
            found.append([scores[request] for request in requests])
        return found

    def _encode(self, unique: list[tuple[str, str]]) -> _Encoded:
        encoded = self.encode([prompt + text for prompt, text in unique])
        sequences, windows, cut = [], [], []
        for number, ((prompt, text), ids) in enumerate(zip(unique, encoded, strict=True)):
            start = self._start(ids, prompt, text)
            dropped = max(0, min(start, len(ids) - self.window))
            sequences.append(self._sequence(ids[dropped:]))
            windows += self._windows(number, len(sequences[-1]) - 1, start - dropped)
            cut.append(dropped > 0)
        return _Encoded(sequences, windows, cut)

    @cached_property
    def window(self) -> int:
        """Predictions of a forward pass at most."""
        return window_of(self.model, self.settings)

    @cached_property
    def _surfaces(self) -> list[Surface | None]:
        return surfaces(self.tokenizer)

    def _sequence(self, ids: list[int]) -> list[int]:
        return ids if self.first_token is None else [self.first_token, *ids]

    def _windows(self, number: int, predictions: int, start: int) -> list[ScoringWindow]:
        """Return the windows that score the tokens from `start`; several for a long text only."""
        first = start if self.first_token is not None else max(0, start - 1)
        if predictions <= self.window:
            return [ScoringWindow(number, 0, first, predictions)] if first < predictions else []
        stride = self.settings.stride
        found = document_windows([predictions], self.window, stride)
        return [ScoringWindow(number, w.begin, w.scored, w.end) for w in found]

    def _start(self, ids: list[int], prompt: str, text: str) -> int:
        """Return the index of the first token that reaches into `text` in the ids of both.

        Counted in bytes from the end, since a tokenizer may prepend a space. One that changes text
        (lower case, unknown characters) is asked for its offsets.
        """
        whole, size = (prompt + text).encode(), len(text.encode())
        pieces = [s.text for i in ids if i < len(self._surfaces) and (s := self._surfaces[i])]
        if len(pieces) != len(ids) or b"".join(pieces) not in (whole, b" " + whole):
            return self._start_by_offsets(ids, prompt, text)
        after = 0
        for index in reversed(range(len(ids))):
            if after >= size:
                return index + 1
            after += len(pieces[index])
        return 0

    def _start_by_offsets(self, ids: list[int], prompt: str, text: str) -> int:
        """Return the same by offsets; without any, the first token that the prompt alone lacks."""
        if self.tokenizer.is_fast:
            found = self.tokenizer(
                prompt + text, add_special_tokens=False, return_offsets_mapping=True
            )
            if found["input_ids"] == ids:
                ends = [end for _, end in found["offset_mapping"]]
                return next((i for i, end in enumerate(ends) if end > len(prompt)), len(ids))
        (before,) = self.encode([prompt])
        same = [a == b for a, b in zip(before, ids, strict=False)]
        return same.index(False) if False in same else len(same)
