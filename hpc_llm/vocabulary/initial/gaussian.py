"""transplant.input=gaussian: draw new rows from N(mu, Sigma) of the old rows, as a control.

Sigma is the full covariance of the old rows, plus 1e-6 of its mean variance on the diagonal
(Hewitt 2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
"""

import torch

from hpc_llm.vocabulary.noise import noise_of
from hpc_llm.vocabulary.rows import NewTokens

__all__ = ["rows"]

JITTER = 1e-6
ROWS = 4096  # in float64 at a time


def rows(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the rows (n, d) of the new `tokens`; `old` is (vocab_o, d) in fp32.

    A row depends only on the text of its token and the seed, not on its id or on other tokens.
    """
    width = old.shape[1]
    mean, covariance = _moments(old)
    jitter = JITTER * covariance.trace() / width
    root = torch.linalg.cholesky(covariance + jitter * torch.eye(width))  # (d, d)
    result = torch.empty(len(tokens.ids), width)
    for places, noise in noise_of(tokens, width):
        result[places] = (mean + noise.double() @ root.T).float()
    return result


def _moments(old: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean (d,) and covariance (d, d) of `old` rows (vocab_o, d), in float64."""
    parts = old.split(ROWS)
    mean = torch.stack([part.double().sum(0) for part in parts]).sum(0) / len(old)
    covariance = torch.zeros(old.shape[1], old.shape[1], dtype=torch.float64)
    for part in parts:
        centred = part.double() - mean
        covariance += centred.T @ centred
    return mean, covariance / max(1, len(old) - 1)
