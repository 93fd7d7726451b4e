"""transplant.input=gaussian: draw new rows from N(mu, Sigma) of the old rows, as a control.

Sigma is the full covariance of the old rows, plus 1e-6 of its mean variance on the diagonal
(Hewitt 2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
"""

import torch

from hpc_llm.vocabulary.rows import NewTokens

__all__ = ["rows"]

JITTER = 1e-6


def rows(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the rows (n, d) of the new `tokens`; `old` is (vocab_o, d) in fp32.

    The noise is drawn for the whole vocabulary, so a row depends only on its id and the seed.
    """
    exact, width = old.double(), old.shape[1]
    covariance = torch.cov(exact.T).reshape(width, width)
    mean_variance = covariance.trace() / width
    root = torch.linalg.cholesky(covariance + JITTER * mean_variance * torch.eye(width))
    generator = torch.Generator().manual_seed(tokens.seed)
    noise = torch.randn(tokens.size, width, generator=generator)[tokens.ids]  # (n, d)
    return (exact.mean(0) + noise.double() @ root.T).float()
