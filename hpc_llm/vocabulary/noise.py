"""Normal noise for the rows of new tokens, which depends only on their ids and the seed."""

from collections.abc import Iterator

import torch

from hpc_llm.vocabulary.rows import NewTokens

__all__ = ["noise_of"]

ROWS = 4096  # drawn at a time


def noise_of(tokens: NewTokens, width: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield places (m,) among the n new tokens, and noise (m, width) from N(0, 1) for them.

    Noise is drawn for the whole vocabulary, also for tokens that are not new.
    """
    generator = torch.Generator().manual_seed(tokens.seed)
    ids = torch.tensor(tokens.ids, dtype=torch.long)  # (n,) ascending
    for begin in range(0, tokens.size, ROWS):
        rows = min(ROWS, tokens.size - begin)
        noise = torch.randn(rows, width, generator=generator)
        places = torch.nonzero((ids >= begin) & (ids < begin + rows))[:, 0]
        yield places, noise[ids[places] - begin]
