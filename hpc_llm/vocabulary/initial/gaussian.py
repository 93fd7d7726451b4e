"""transplant.input=gaussian: draw new rows from N(mu, Sigma) of the old rows, as a control.

Sigma is the full covariance of the old rows, plus 1e-6 of its mean variance on the diagonal
(Hewitt 2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
"""

import torch

from hpc_llm.vocabulary.noise import noise_of
from hpc_llm.vocabulary.rows import NewTokens
from hpc_llm.vocabulary.statistics import covariance_of, mean_of

__all__ = ["rows"]

JITTER = 1e-6


def rows(old: torch.Tensor, tokens: NewTokens) -> torch.Tensor:
    """Return the rows (n, d) of the new `tokens`; `old` is (vocab_o, d).

    A row depends only on the text of its token and the seed, not on its id or on other tokens.
    """
    width = old.shape[1]
    mean = mean_of(old)
    covariance = covariance_of(old, mean)
    covariance.diagonal().add_(JITTER * covariance.trace() / width)
    root = torch.linalg.cholesky(covariance)  # (d, d)
    result = torch.empty(len(tokens.ids), width, dtype=old.dtype)
    for places, noise in noise_of(tokens, width):
        result[places] = (mean + noise.double() @ root.T).to(old.dtype)
    return result
