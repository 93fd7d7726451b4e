"""Contexts of new tokens in the target text, under the new and under the old vocabulary."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

from hpc_llm.vocabulary.rows import NewTokens

__all__ = ["Batch", "Spelling", "sample_contexts"]


def sample_contexts(tokens: NewTokens, length: int, most: int) -> list[np.ndarray]:
    """Return contexts, ids of `length` new tokens or fewer behind the first token of a document.

    A context is kept if a new token in it has been in fewer than `most` before, so frequent tokens
    do not take all. Contexts with a token that the old vocabulary cannot spell are skipped.
    """
    spelt = np.zeros(tokens.size, dtype=bool)
    spelt[[new_id for new_id, _ in tokens.anchors]] = True
    new = np.zeros(tokens.size, dtype=bool)
    new[tokens.ids] = True
    spelt[[i for i, ids in zip(tokens.ids, tokens.pieces, strict=True) if ids]] = True
    missing = np.where(new & spelt, most, 0)  # contexts still wanted, by token
    kept = []
    for ids in _windows(tokens, length):
        if spelt[ids].all() and (missing[ids] > 0).any():
            missing[np.unique(ids)] -= 1
            kept.append(ids)
            if not (missing > 0).any():
                break
    return kept


def _windows(tokens: NewTokens, length: int) -> Iterator[np.ndarray]:
    """Yield parts of each document behind its first token (BOS)."""
    for document in tokens.documents:
        for begin in range(1, len(document), length):
            part = document[begin : begin + length]
            yield np.concatenate([document[:1], part]).astype(np.int64)


@dataclass(frozen=True)
class Batch:
    """Contexts as rectangles; causal models do not need a mask for the padding at the end."""

    new: torch.Tensor
    """Ids of new tokens (b, t), padded."""
    old: torch.Tensor
    """Ids of old tokens (b, s), padded."""
    ends: torch.Tensor
    """Place of the last old token of each new token (b, t)."""
    compared: torch.Tensor
    """Which places of `new` are neither padding nor the first token, bool (b, t)."""


class Spelling:
    """The old ids of each token of the new vocabulary."""

    def __init__(self, tokens: NewTokens) -> None:
        """Take copied and new tokens together."""
        self._old = {new_id: [old_id] for new_id, old_id in tokens.anchors}
        self._old |= dict(zip(tokens.ids, tokens.pieces, strict=True))

    def batch(self, contexts: list[np.ndarray]) -> Batch:
        """Return `contexts` under both vocabularies."""
        spelt = [[self._old[int(i)] for i in ids] for ids in contexts]
        old = [[j for ids in one for j in ids] for one in spelt]
        ends = [[end - 1 for end in accumulate(map(len, one))] for one in spelt]
        new = _rectangle([ids.tolist() for ids in contexts])
        lengths = torch.tensor([len(ids) for ids in contexts])
        places = torch.arange(new.shape[1])
        compared = (places > 0) & (places < lengths[:, None])
        return Batch(new, _rectangle(old), _rectangle(ends), compared)


def _rectangle(lists: list[list[int]]) -> torch.Tensor:
    """Return lists as rows, filled up with their first item."""
    longest = max(map(len, lists))
    return torch.tensor([one + one[:1] * (longest - len(one)) for one in lists])
