"""Fits of embeddings to donor vectors: the anchors they use, and how their rows are filled in."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from hpc_llm.errors import UserError
from hpc_llm.vocabulary.donors import Donor
from hpc_llm.vocabulary.rows import NewTokens
from hpc_llm.vocabulary.solvers import quantiles, unit
from hpc_llm.vocabulary.statistics import norms_of

__all__ = ["Fitted", "fill", "fitted_anchors", "held_out"]

MOST_DIMENSIONS, ANCHORS_PER_DIMENSION = 300, 5


@dataclass(frozen=True)
class Fitted:
    """The donor, and the a anchors that fits use."""

    donor: Donor
    new_ids: np.ndarray
    """int64 (a,)."""
    old_ids: np.ndarray
    """int64 (a,)."""
    old: torch.Tensor
    """All old rows (vocab_o, d)."""
    norms: np.ndarray
    """Lengths of the anchors' old rows, float64 (a,)."""

    def rows(self, part: slice | np.ndarray) -> np.ndarray:
        """Return the old rows (m, d) in float64 of the anchors `part`."""
        found: np.ndarray = self.old[torch.from_numpy(self.old_ids[part])].double().numpy()
        return found

    @property
    def vectors(self) -> np.ndarray:
        """The anchors' donor vectors (a, q)."""
        found: np.ndarray = self.donor.vectors[self.new_ids]
        return found


def fitted_anchors(old: torch.Tensor, tokens: NewTokens) -> Fitted:
    """Return the anchors of fits to `old` rows (vocab_o, d): plain tokens that were trained.

    Excludes special tokens, tokens without a vector or not in the training text, and embeddings
    whose norm is below the quantile `transplant.anchors.drop_norm_quantile` of all old rows. Raises
    `UserError` if fewer than two remain, and for more dimensions than a fifth of the anchors.
    """
    settings = tokens.settings
    norms = norms_of(old).numpy()
    shortest = np.quantile(norms, settings.anchors.drop_norm_quantile)
    plain = [(i, j) for i, j in tokens.anchors if i not in tokens.special]
    pairs = [(i, j) for i, j in plain if norms[j] >= shortest and norms[j] > 0]
    wanted = settings.donor.dimensions
    donor = tokens.donor(wanted or MOST_DIMENSIONS)
    kept = [(i, j) for i, j in pairs if donor.known[i] and donor.counts[i] > 0]
    kept.sort(key=lambda pair: pair[1])  # ties do not depend on the order of new ids
    if len(kept) < 2:
        raise UserError(
            "transplant.donor.min_count",
            settings.donor.min_count,
            f"{len(kept)} of {len(pairs):,} shared tokens are that frequent in the training text",
            "use a smaller one, more text, or transplant.input=mean",
        )
    most = len(kept) // ANCHORS_PER_DIMENSION
    if wanted is not None and wanted > most:
        raise UserError(
            "transplant.donor.dimensions",
            wanted,
            f"needs {ANCHORS_PER_DIMENSION} anchors a dimension, and the vocabularies share "
            f"{len(kept):,} tokens that fits can use",
            f"use at most {most}" if most else "use transplant.input=mean",
        )
    # the first columns are the largest factors
    donor = replace(donor, vectors=donor.vectors[:, : wanted or max(1, most)])
    tokens.report.update(
        anchors=len(kept),
        anchors_left_out=len(tokens.anchors) - len(kept),
        dimensions=donor.vectors.shape[1],
        donor=donor.fingerprint,
    )
    new_ids, old_ids = np.array(kept, np.int64).T
    return Fitted(donor, new_ids, old_ids, old, norms[old_ids])


def fill(
    rows: torch.Tensor,
    fitted: Fitted,
    tokens: NewTokens,
    rows_of: Callable[[np.ndarray], torch.Tensor],
    chunk: int,
) -> int:
    """Overwrite the `rows` (n, d) of the new tokens that have a vector; return their number.

    `rows_of` returns the rows (m, d) of m new ids, `chunk` or fewer. They get lengths by
    `transplant.norms`; the lengths before are reported.
    """
    places = np.flatnonzero(fitted.donor.known[tokens.ids])
    ids = np.array(tokens.ids)[places]
    wanted = _lengths(fitted, tokens)
    before = np.zeros(len(ids))
    for begin in range(0, len(ids), chunk):
        part = slice(begin, begin + chunk)
        found = rows_of(ids[part])
        before[part] = norms_of(found).numpy()
        if wanted is not None:
            found = torch.from_numpy(unit(found.double().numpy()) * wanted[ids[part], None])
        rows[places[part]] = found.to(rows.dtype)
    tokens.report["norms_before"] = quantiles(before)
    return len(ids)


def _lengths(fitted: Fitted, tokens: NewTokens) -> np.ndarray | None:
    """Return the lengths (vocab_n,) that `transplant.norms` gives fitted rows; None: their own."""
    kind, counts = tokens.settings.norms, fitted.donor.counts
    if kind == "anchors":
        return np.full(len(counts), np.median(fitted.norms))
    if kind == "frequency":
        logs = np.log1p(counts)
        slope, shift = np.polyfit(logs[fitted.new_ids], np.log(fitted.norms), 1)
        lengths: np.ndarray = np.exp(shift + slope * logs)
        return lengths
    return None


def held_out(tokens: NewTokens, ids: np.ndarray, share: float) -> np.ndarray:
    """Return which tokens are held out, bool: by a hash of their text, so by nothing else."""
    texts = [tokens.surfaces[i] if len(tokens.surfaces) else None for i in ids]
    words = [str(i).encode() if text is None else text for i, text in zip(ids, texts, strict=True)]
    heads = [int.from_bytes(hashlib.sha256(word).digest()[:8], "big") for word in words]
    return np.array([head < share * 2**64 for head in heads], dtype=bool)
