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
    ScoringWindow,
    document_windows,
    window_of,
    windows_nll,
)
from hpc_llm.settings import EvaluationSettings
from hpc_llm.vocabulary.surfaces import Surface, surfaces

__all__ = ["Score", "Scorer"]


@dataclass(frozen=True)
class Score:
    """The score of a continuation."""

    nats: float
    """S(c), at most 0."""
    cut: bool
    """Whether its prompt was cut to fit into the window."""


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
        unique = list(dict.fromkeys(requests))
        encoded = self.encode([prompt + text for prompt, text in unique])
        sequences, windows, cut = [], [], []
        for number, ((prompt, text), ids) in enumerate(zip(unique, encoded, strict=True)):
            start = self._start(ids, prompt, text)
            dropped = max(0, min(start, len(ids) - self._window))
            sequences.append(self._sequence(ids[dropped:]))
            windows += self._windows(number, len(sequences[-1]) - 1, start - dropped)
            cut.append(dropped > 0)
        nll = windows_nll(self.model, sequences, windows, self.settings.batch_tokens)
        found = {
            request: Score(-float(nats), was_cut)
            for request, nats, was_cut in zip(unique, nll, cut, strict=True)
        }
        return [found[request] for request in requests]

    @cached_property
    def _window(self) -> int:
        return window_of(self.model, self.settings)

    @cached_property
    def _surfaces(self) -> list[Surface | None]:
        return surfaces(self.tokenizer)

    def _sequence(self, ids: list[int]) -> list[int]:
        return ids if self.first_token is None else [self.first_token, *ids]

    def _windows(self, number: int, predictions: int, start: int) -> list[ScoringWindow]:
        """Return the windows that score the tokens from `start`; several for a long text only."""
        first = start if self.first_token is not None else max(0, start - 1)
        if predictions <= self._window:
            return [ScoringWindow(number, 0, first, predictions)] if first < predictions else []
        stride = self.settings.stride
        found = document_windows([predictions], self._window, stride)
        return [ScoringWindow(number, w.begin, w.scored, w.end) for w in found]

    def _start(self, ids: list[int], prompt: str, text: str) -> int:
        """Return the index of the first token that reaches into `text` in the ids of both.

        Counted in bytes from the end, since a tokenizer may prepend a space. One that changes text
        (lower case, unknown characters) is asked for its offsets.
        """
        whole, size = (prompt + text).encode(), len(text.encode())
        pieces = [s.text for i in ids if i < len(self._surfaces) and (s := self._surfaces[i])]
        if len(pieces) != len(ids) or b"".join(pieces) not in (whole, b" " + whole):
            return self._start_by_offsets(prompt, text)
        after = 0
        for index in reversed(range(len(ids))):
            if after >= size:
                return index + 1
            after += len(pieces[index])
        return 0

    def _start_by_offsets(self, prompt: str, text: str) -> int:
        if not self.tokenizer.is_fast:
            (before,) = self.encode([prompt])
            (both,) = self.encode([prompt + text])
            same = [a == b for a, b in zip(before, both, strict=False)]
            return same.index(False) if False in same else len(same)
        found = self.tokenizer(
            prompt + text, add_special_tokens=False, return_offsets_mapping=True
        )["offset_mapping"]
        reaching = [index for index, (_, end) in enumerate(found) if end > len(prompt)]
        return reaching[0] if reaching else len(found)
