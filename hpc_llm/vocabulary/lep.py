"""Learned embedding propagation (LEP): embeddings of an adapted model for a sibling of its base.

Tikhomirov and Chernyshev 2024, arXiv 2412.21140. Row-vector convention, rows of width d: X are the
base model's embeddings in the new vocabulary, Y those of its instruct sibling. P minimises
|X P - Y|, and the adapted model's embeddings E become E P. Where X has less than full column rank
many P are equal; of these the one nearest to the identity is taken, P = I + D with the shortest D
[derived], so that directions without evidence stay as they are.

The least squares problem is reduced to a triangle of 2d columns by QR of chunks of rows. This does
not square the condition number as normal equations do, and needs 12 d^2 numbers in float64 (1.6 GB
for d = 4096) instead of two matrices of the vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["Propagation", "fit_propagation", "propagate"]

CHUNK = 4  # rows of a chunk, in units of d
FOLDS = 10  # every tenth row is held out
RELATIVE_RANK = float(np.finfo(np.float32).eps)  # singular values below it are rounding errors


@dataclass(frozen=True, kw_only=True)
class Propagation:
    """A fitted P, and how well it fits."""

    change: np.ndarray
    """D = P - I, float64 (d, d)."""
    rows: int
    """Rows of X and Y."""
    rank: int
    """Column rank of X."""
    residual: float
    """|X P - Y| / |Y| over all rows; 0 for Y = 0."""
    held_out_residual: float | None
    """The same over every tenth row, with P fitted to the others; None for fewer than 10 rows."""
    identity_residual: float
    """|X - Y| / |Y|: how much the embeddings of the siblings differ."""


def fit_propagation(
    base: torch.Tensor, instruct: torch.Tensor, rows: torch.Tensor | None = None
) -> Propagation:
    """Fit P to `base` X and `instruct` Y, both (vocab, d) in the same vocabulary.

    Only to the `rows` of these ids (int64), if given.
    """
    width = base.shape[1]
    rows = torch.arange(len(base)) if rows is None else rows
    held = torch.arange(len(rows)) % FOLDS == FOLDS - 1
    others = _triangle(base, instruct, rows[~held])
    test = _triangle(base, instruct, rows[held])
    everything = _qr(np.concatenate([others, test]))
    change, rank = _solve(everything)
    tried = _solve(others)[0] if len(test) else None
    return Propagation(
        change=change,
        rows=len(rows),
        rank=rank,
        residual=_residual(everything, change),
        held_out_residual=None if tried is None else _residual(test, tried),
        identity_residual=_residual(everything, np.zeros((width, width))),
    )


def propagate(rows: torch.Tensor, fit: Propagation) -> torch.Tensor:
    """Return `rows` P (vocab, d) in the precision of `rows`, computed in float64 in chunks."""
    change, result = torch.from_numpy(fit.change), torch.empty_like(rows)
    size = CHUNK * rows.shape[1]
    for part, out in zip(rows.split(size), result.split(size), strict=True):
        out.copy_(part.double() + part.double() @ change)
    return result


def _triangle(base: torch.Tensor, instruct: torch.Tensor, rows: torch.Tensor) -> np.ndarray:
    """Return R (at most 2d, 2d) of the QR decomposition of `rows` of [X Y], float64."""
    found = np.zeros((0, 2 * base.shape[1]))
    for part in rows.split(CHUNK * base.shape[1]):
        block = torch.cat([base[part], instruct[part]], dim=1).double().numpy()
        found = _qr(np.concatenate([found, block]))
    return found


def _qr(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.qr(matrix, mode="r")) if len(matrix) else matrix


def _solve(triangle: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the shortest D that minimises |X (I + D) - Y|, and the rank of X."""
    from scipy.linalg import lstsq

    x, y = np.hsplit(triangle, 2)
    change, _, rank, _ = lstsq(x, y - x, cond=RELATIVE_RANK, lapack_driver="gelsy")
    return change, int(rank)


def _residual(triangle: np.ndarray, change: np.ndarray) -> float:
    """Return |X (I + D) - Y| / |Y|, from the triangle of [X Y]."""
    x, y = np.hsplit(triangle, 2)
    size = float(np.linalg.norm(y))
    return float(np.linalg.norm(x + x @ change - y)) / size if size else 0.0
