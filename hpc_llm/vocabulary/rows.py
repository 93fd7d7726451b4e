"""New tokens as passed to initialisations, and sums of old embeddings."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hpc_llm.errors import UserError
from hpc_llm.settings import TransplantSettings
from hpc_llm.vocabulary.donors import Donor
from hpc_llm.vocabulary.statistics import mean_of

__all__ = ["NewTokens", "TrainingText", "combine", "mean_of_pieces", "sum_of_pieces"]


@dataclass(frozen=True, kw_only=True)
class TrainingText:
    """The target text under the new vocabulary, for initialisations that learn from it."""

    vectors: Callable[[int], Donor] | None = None
    """Returns the donor's vectors of all new tokens, given their largest length."""
    documents: Iterable[np.ndarray] = ()
    """Token ids (length,) of each document, each time it is iterated."""
    state: Path | None = None
    """A file for the state of a long training, from which it resumes after a kill; None: none."""


@dataclass(frozen=True, kw_only=True)
class NewTokens:
    """The n tokens of the new vocabulary that are missing in the old one."""

    ids: list[int]
    """Their ids in the new vocabulary, ascending."""
    pieces: list[list[int]]
    """For each token the old ids that spell its surface, in order; [] if impossible."""
    anchors: list[tuple[int, int]]
    """(new id, old id) of all other tokens, whose rows are copied."""
    size: int
    """Size of the new vocabulary: n + number of anchors."""
    seed: int
    """Seed of random initialisations."""
    settings: TransplantSettings
    special: frozenset[int] = frozenset()
    """New ids of the special tokens among the anchors."""
    spaces: frozenset[int] = frozenset()
    """Old ids of tokens of nothing but spaces."""
    surfaces: Sequence[bytes | None] = ()
    """The text of each new token (vocab_n); None for special and unused ids."""
    vectors: Callable[[int], Donor] | None = None
    """As in `TrainingText`."""
    documents: Iterable[np.ndarray] = ()
    """As in `TrainingText`."""
    state: Path | None = None
    """As in `TrainingText`."""
    model: PreTrainedModel | None = None
    """The base model; its layers are on the meta device if the stage streams them."""
    inputs: torch.Tensor | None = None
    """For the LM head: the new input embedding (vocab_n, d); None: there is none yet."""
    report: dict[str, Any] = field(default_factory=dict)
    """What an initialisation reports, for the record. `sources`: how many rows each of several
    initialisations gave, by name; without it all are its own."""

    def donor(self, largest: int) -> Donor:
        """Return the donor's vectors of at most `largest` dimensions.

        Raises `UserError` where there is no training text to make them from.
        """
        if self.vectors is None:
            raise UserError(
                "transplant",
                None,
                "this initialisation needs vectors of the new tokens, made from training text",
                "use transplant.input=mean and transplant.output=mean",
            )
        return self.vectors(largest)


Weigh = Callable[[list[int]], list[float]]
CHUNK = 1024  # tokens at a time: their old rows are in fp32


def combine(
    old: torch.Tensor, places: torch.Tensor, weights: torch.Tensor, count: int
) -> torch.Tensor:
    """Return T E_o (count, d) in fp32 for `old` rows E_o (vocab_o, d).

    The sparse matrix T (count, vocab_o) has `weights` (m,) at `places` (2, m): row, old id. The old
    rows in use are copied to fp32, so `count` should be small.
    """
    used, columns = torch.unique(places[1], return_inverse=True)
    inside, size = torch.stack([places[0], columns]), (count, len(used))
    matrix = torch.sparse_coo_tensor(inside, weights.float(), size, check_invariants=True)
    return torch.sparse.mm(matrix.coalesce(), old[used].float())


def sum_of_pieces(old: torch.Tensor, tokens: NewTokens, weigh: Weigh) -> torch.Tensor:
    """Return the weighted sums (n, d) of the `old` rows (vocab_o, d) that spell each new token.

    They are computed in fp32 and returned in the precision of `old`. `weigh(ids)` returns the
    weights of its pieces `ids`. A token that cannot be spelled gets the mean of all old rows.
    """
    result = torch.empty(len(tokens.ids), old.shape[1], dtype=old.dtype)
    for begin in range(0, len(tokens.ids), CHUNK):
        part = tokens.pieces[begin : begin + CHUNK]
        pairs = [(i, j) for i, ids in enumerate(part) for j in ids]
        places = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T  # (2, nonzeros)
        weights = torch.tensor([w for ids in part if ids for w in weigh(ids)])
        result[begin : begin + CHUNK] = combine(old, places, weights, len(part))
    unknown = torch.tensor([not ids for ids in tokens.pieces], dtype=torch.bool)  # (n,)
    if unknown.any():
        result[unknown] = mean_of(old).to(old.dtype)
    return result


def mean_of_pieces(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the means (n, d) of the `old` rows (vocab_o, d) that spell each token."""
    return sum_of_pieces(old, tokens, lambda ids: [1.0 / len(ids)] * len(ids))
