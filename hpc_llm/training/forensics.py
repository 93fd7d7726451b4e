"""What a step was made of, so that two runs can be compared and one step can be done again.

Every step leaves a record with its global loss and a fingerprint of its batch; the fingerprints
are chained, so that equal chains at one step mean equal batches at all steps before it. Both are
the same for any number of ranks: rows are hashed with their global number and summed.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from hpc_llm.training.data.rows import Rows

__all__ = ["MODULUS", "StepRecord", "batch_sum", "chained"]

MODULUS = 2**62  # sums of a few stay within the 64 bits of a collective


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step."""

    step: int
    """Steps of the stage that are done with it."""
    batch: int
    """Number of its batch in the order of the text."""
    chain: str
    """Fingerprint of its batch and of all before it."""
    loss: float
    """Mean nats per label token over the global batch."""
    gradient_norm: float | None
    applied: bool
    """False where a guard left its update out."""

    def as_list(self) -> list[Any]:
        """Return the fields as strict JSON has them: what is NaN or infinite as a string."""
        return [
            str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for value in astuple(self)
        ]

    @classmethod
    def of(cls, values: Sequence[Any]) -> "StepRecord":
        """Return the record with these fields, as `as_list` gives them."""
        step, batch, chain, loss, norm, applied = values
        return cls(step, batch, chain, float(loss), None if norm is None else float(norm), applied)


def batch_sum(indices: Sequence[range], rows: Sequence[Rows]) -> int:
    """Return the fingerprint of this rank's rows; over ranks the sums are added, mod `MODULUS`."""
    total = 0
    for numbers, part in zip(indices, rows, strict=True):
        for number, pieces in zip(numbers, part.pieces, strict=True):
            digest = hashlib.blake2b(str(number).encode(), digest_size=8)
            for tokens in pieces:
                digest.update(len(tokens).to_bytes(8, "big"))
                digest.update(tokens.astype(np.int64).tobytes())
            total += int.from_bytes(digest.digest(), "big")
    return total % MODULUS


def chained(before: str, batch: int) -> str:
    """Return the chain with one more batch at its end."""
    return hashlib.blake2b(f"{before} {batch % MODULUS}".encode(), digest_size=8).hexdigest()
