"""Normal noise for the rows of new tokens, which depends only on their texts and the seed.

So a token starts at the same row in every vocabulary that has it, whatever its id.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import torch

from hpc_llm.vocabulary.rows import NewTokens

__all__ = ["noise_of"]

ROWS = 1024  # drawn at a time


def noise_of(tokens: NewTokens, width: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield places among the n new tokens, and noise (m, width) from N(0, 1) for them.

    Special tokens and ids that no token has are known by their ids.
    """
    for begin in range(0, len(tokens.ids), ROWS):
        part = slice(begin, begin + ROWS)
        drawn = [_generator(tokens, i).standard_normal(width, "f4") for i in tokens.ids[part]]
        yield part, torch.from_numpy(np.stack(drawn))


def _generator(tokens: NewTokens, index: int) -> np.random.Generator:
    """Return the generator of a token; its key has 128 bits, so no two are equal by chance."""
    text = tokens.surfaces[index] if len(tokens.surfaces) else None
    name = b"\0%d" % index if text is None else text
    digest = hashlib.sha256(b"%d:" % tokens.seed + name).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
