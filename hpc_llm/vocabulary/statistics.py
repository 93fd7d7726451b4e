"""Statistics of old rows in chunks: a matrix in bf16 is never in fp32 as a whole."""

from collections.abc import Iterator

import torch

__all__ = ["covariance_of", "deviation_of", "in_parts", "mean_of", "norms_of"]

ROWS = 4096  # in float64 at a time


def in_parts(rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield `rows` (n, d) in chunks, in float64."""
    for part in rows.detach().split(ROWS):
        yield part.double()


def mean_of(rows: torch.Tensor) -> torch.Tensor:
    """Return the mean (d,) of `rows` (n, d), in float64."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for part in in_parts(rows):
        total += part.sum(0)
    return total / len(rows)


def deviation_of(rows: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Return the standard deviations (d,) of `rows` (n, d) around `mean`, in float64."""
    squares = torch.zeros_like(mean)
    for part in in_parts(rows):
        squares += (part - mean).square_().sum(0)
    return (squares / max(1, len(rows) - 1)).sqrt()


def covariance_of(rows: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Return the covariance (d, d) of `rows` (n, d) around `mean`, in float64."""
    products = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for part in in_parts(rows):
        centred = part - mean
        products.addmm_(centred.T, centred)
    return products / max(1, len(rows) - 1)


def norms_of(rows: torch.Tensor) -> torch.Tensor:
    """Return the lengths (n,) of `rows` (n, d), in float64."""
    empty = torch.zeros(0, dtype=torch.float64)
    parts = [torch.linalg.vector_norm(part, dim=1) for part in in_parts(rows)]
    return torch.cat([empty, *parts])
