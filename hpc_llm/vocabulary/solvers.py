"""Solvers in float64 on plain arrays: weighted ridge regression, sparsemax, matching pursuit."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = [
    "Moments",
    "cosine",
    "matching_pursuit",
    "moments",
    "quantiles",
    "r_squared",
    "ridge",
    "sparsemax",
    "unit",
]

TINY = 1e-6  # a residual of this length is none
CHUNK = 4096  # rows of y at a time


@dataclass(frozen=True)
class Moments:
    """Weighted means and products of x (a, q) and y (a, d), from which ridges are solved."""

    x_mean: np.ndarray
    """(q,)."""
    y_mean: np.ndarray
    """(d,)."""
    gram: np.ndarray
    """sum_i w_i xc_i^T xc_i (q, q), of the centred xc."""
    cross: np.ndarray
    """sum_i w_i xc_i^T y_i (q, d)."""

    def solve(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Return P (q, d) and b (d,) that minimise sum_i w_i |x_i P + b - y_i|^2 + penalty |P|^2.

        The intercept b is not penalised.
        """
        matrix = np.linalg.solve(self.gram + penalty * np.eye(len(self.gram)), self.cross)
        return matrix, self.y_mean - self.x_mean @ matrix


def moments(x: np.ndarray, weights: np.ndarray, rows_of: Callable[[slice], np.ndarray]) -> Moments:
    """Return the moments of x (a, q) and y (a, d) with weights (a,).

    `rows_of(part)` returns y[part]: y as a whole need not be in memory in float64.
    """
    share = weights / weights.sum()
    centred = x - share @ x
    weighted = centred * weights[:, None]
    y_mean, cross = 0.0, 0.0
    for begin in range(0, len(x), CHUNK):
        part = slice(begin, begin + CHUNK)
        y = rows_of(part).astype(np.float64)
        y_mean, cross = y_mean + share[part] @ y, cross + weighted[part].T @ y
    return Moments(share @ x, np.asarray(y_mean), weighted.T @ centred, np.asarray(cross))


def ridge(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return P (q, d) and b (d,) of `Moments.solve` for x (a, q), y (a, d), weights (a,)."""
    return moments(x, weights, y.__getitem__).solve(penalty)


def r_squared(y: np.ndarray, found: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted share of the variance of y (a, d) that `found` explains."""
    mean = weights @ y / weights.sum()
    rest = weights @ ((y - found) ** 2).sum(1)
    return float(1 - rest / max(weights @ ((y - mean) ** 2).sum(1), np.finfo(float).tiny))


def cosine(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the mean cosine between the rows of two matrices (a, d)."""
    return float((unit(found) * unit(wanted)).sum(1).mean())


def quantiles(values: np.ndarray) -> list[float]:
    """Return the 5 %, 50 % and 95 % quantiles; [] of nothing."""
    return [float(q) for q in np.quantile(values, (0.05, 0.5, 0.95))] if len(values) else []


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
