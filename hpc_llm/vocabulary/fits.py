"""Fits between donor vectors and embeddings, in float64: ridge, sparsemax, orthogonal matching.

All are functions of arrays. `fitted_anchors` says to which tokens they are fitted.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hpc_llm.errors import UserError
from hpc_llm.vocabulary.donors import Donor
from hpc_llm.vocabulary.rows import NewTokens

__all__ = [
    "Fitted",
    "cosines_of",
    "fitted_anchors",
    "held_out",
    "matching_pursuit",
    "r_squared",
    "ridge",
    "sparsemax",
    "unit",
    "with_norms",
]

TINY = 1e-6  # a residual of this length is none
MOST_DIMENSIONS, ANCHORS_PER_DIMENSION = 300, 5


@dataclass(frozen=True)
class Fitted:
    """The donor, and the a anchors that fits use."""

    donor: Donor
    new_ids: np.ndarray
    """int64 (a,)."""
    old_ids: np.ndarray
    """int64 (a,)."""
    rows: np.ndarray
    """The anchors' old rows, float64 (a, d)."""

    @property
    def vectors(self) -> np.ndarray:
        """The anchors' donor vectors (a, q)."""
        found: np.ndarray = self.donor.vectors[self.new_ids]
        return found


def fitted_anchors(old: np.ndarray, tokens: NewTokens) -> Fitted:
    """Return the anchors of fits to `old` rows (vocab_o, d): plain tokens that were trained.

    Excludes special tokens, tokens without a vector, and embeddings whose norm is below the
    quantile `transplant.anchors.drop_norm_quantile` of all old rows. Raises `UserError` if fewer
    than two remain, and for more dimensions than a fifth of the anchors.
    """
    settings = tokens.settings
    norms = np.linalg.norm(old, axis=1)
    shortest = np.quantile(norms, settings.anchors.drop_norm_quantile)
    pairs = [(i, j) for i, j in tokens.anchors if i not in tokens.special and norms[j] >= shortest]
    wanted = settings.donor.dimensions
    donor = tokens.donor(wanted or MOST_DIMENSIONS)
    kept = [(i, j) for i, j in pairs if donor.known[i]]
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
        without_vector=int(np.sum(~donor.known[tokens.ids])),
    )
    new_ids, old_ids = np.array(kept, np.int64).T
    return Fitted(donor, new_ids, old_ids, old[old_ids].astype(np.float64))


def with_norms(found: np.ndarray, ids: np.ndarray, fitted: Fitted, tokens: NewTokens) -> np.ndarray:
    """Return rows `found` (n, d) of the tokens `ids` (n,), with lengths by `transplant.norms`."""
    lengths, kind = np.linalg.norm(fitted.rows, axis=1), tokens.settings.norms
    if kind == "anchors":
        wanted: np.ndarray = np.full(len(ids), np.median(lengths))
    elif kind == "frequency":
        counts = np.log1p(fitted.donor.counts)
        slope, shift = np.polyfit(counts[fitted.new_ids], np.log(lengths), 1)
        wanted = np.exp(shift + slope * counts[ids])
    else:
        wanted = np.linalg.norm(found, axis=1)
    scaled: np.ndarray = unit(found) * wanted[:, None]
    tokens.report["norms"] = {
        "anchors": _quantiles(lengths),
        "new": _quantiles(np.linalg.norm(found, axis=1)),
        "kept": _quantiles(wanted),
    }
    return found if kind == "keep" else scaled


def _quantiles(values: np.ndarray) -> list[float]:
    """Return the 5 %, 50 % and 95 % quantiles; [] of nothing."""
    return [float(q) for q in np.quantile(values, (0.05, 0.5, 0.95))] if len(values) else []


def held_out(tokens: NewTokens, ids: np.ndarray, share: float) -> np.ndarray:
    """Return which tokens are held out, bool: by a hash of their text, so by nothing else."""
    texts = [tokens.surfaces[i] if len(tokens.surfaces) else None for i in ids]
    words = [str(i).encode() if text is None else text for i, text in zip(ids, texts, strict=True)]
    heads = [int.from_bytes(hashlib.sha256(word).digest()[:8], "big") for word in words]
    return np.array([head < share * 2**64 for head in heads], dtype=bool)


def ridge(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return P (q, d) and b (d,) that minimise sum_i w_i |x_i P + b - y_i|^2 + penalty |P|^2.

    x is (a, q), y (a, d), weights (a,). The intercept b is not penalised.
    """
    share = weights / weights.sum()
    x_mean, y_mean = share @ x, share @ y
    xc, yc = x - x_mean, y - y_mean
    gram = (xc * weights[:, None]).T @ xc + penalty * np.eye(x.shape[1])
    projection = np.linalg.solve(gram, (xc * weights[:, None]).T @ yc)
    return projection, y_mean - x_mean @ projection


def r_squared(y: np.ndarray, found: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted share of the variance of y (a, d) that `found` explains."""
    mean = weights @ y / weights.sum()
    rest = weights @ ((y - found) ** 2).sum(1)
    return float(1 - rest / max(weights @ ((y - mean) ** 2).sum(1), np.finfo(float).tiny))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors (n, q) scaled to length 1; zero vectors stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: np.ndarray = vectors / np.where(norms == 0, 1.0, norms)
    return scaled


def sparsemax(scores: np.ndarray) -> np.ndarray:
    """Return the nearest points of the simplex to the rows of `scores` (n, a).

    Martins and Astudillo 2016 (arXiv 1602.02068), algorithm 1.
    """
    down = -np.sort(-scores, axis=1)
    sums = np.cumsum(down, axis=1)
    places = np.arange(1, scores.shape[1] + 1)
    support = (1 + places * down > sums).sum(1)  # the inequality holds for a prefix
    threshold = (np.take_along_axis(sums, support[:, None] - 1, 1)[:, 0] - 1) / support
    result: np.ndarray = np.maximum(0.0, scores - threshold[:, None])
    return result


def matching_pursuit(
    targets: np.ndarray, atoms: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the chosen atoms (n, k) and their coefficients (n, k), by orthogonal matching pursuit.

    targets (n, q) are approximated by at most `most` of the `atoms` (a, q) each (Pati et al. 1993):
    the atom with the largest cosine to the residual is added, and all coefficients are fitted
    again. Atom -1 with coefficient 0: the residual was none before.
    """
    lengths = np.linalg.norm(atoms, axis=1)
    directions = unit(atoms)
    rows, steps = len(targets), min(most, len(atoms))
    basis = np.zeros((rows, steps, targets.shape[1]))  # orthonormal: Q of a QR decomposition
    triangle = np.zeros((rows, steps, steps))  # R: directions in that basis
    chosen = np.full((rows, steps), -1)
    residual = targets.copy()
    everyone = np.arange(rows)
    free = np.ones((rows, len(atoms)), dtype=bool) & (lengths > 0)
    for step in range(steps):
        cosines = np.where(free, np.abs(residual @ directions.T), -1.0)
        best = cosines.argmax(1)
        left = (np.linalg.norm(residual, axis=1) > TINY) & (cosines[everyone, best] > 0)
        vector = directions[best]
        inside = np.einsum("nkq,nq->nk", basis, vector)
        rest = vector - np.einsum("nk,nkq->nq", inside, basis)
        norm = np.linalg.norm(rest, axis=1)
        left &= norm > TINY
        fresh = np.where(left[:, None], rest / np.where(norm == 0, 1.0, norm)[:, None], 0.0)
        basis[:, step] = fresh
        triangle[:, :, step] = np.where(left[:, None], inside, 0.0)
        triangle[:, step, step] = np.where(left, norm, 1.0)
        chosen[left, step] = best[left]
        free[everyone, best] = False
        residual = residual - fresh * np.einsum("nq,nq->n", fresh, residual)[:, None]
    right = np.einsum("nkq,nq->nk", basis, targets)
    on_units = np.linalg.solve(triangle, right[:, :, None])[:, :, 0] if steps else right
    scale = np.where(chosen >= 0, lengths[chosen], 1.0)
    return chosen, np.where(chosen >= 0, on_units / scale, 0.0)


def cosines_of(found: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """Return the mean cosine between two sets of rows (a, d)."""
    return {"cosine": float((unit(found) * unit(wanted)).sum(1).mean())}
