"""Step records: compare two runs step by step, and rerun a single step.

Every step has a record with its global loss and a fingerprint of its batch. The fingerprints are
chained: equal chains at one step mean equal batches at all steps before it. Both are independent
of the number of ranks: sequences are hashed with their global index and summed.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from hpc_llm.training.data.rows import Rows

__all__ = ["MODULUS", "StepRecord", "batch_sum", "chained"]

MODULUS = 2**62  # divides 2**64: the int64 sum of a collective may wrap around


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step."""

    step: int
    """Steps of the stage completed, including this one."""
    batch: int
    """Index of its batch in reading order."""
    chain: str
    """Chained fingerprint of its batch and all earlier ones."""
    loss: float
    """Mean nats per label token over the global batch."""
    gradient_norm: float | None
    applied: bool
    """False if a guard skipped its update."""

    def as_list(self) -> list[Any]:
        """Return the fields for strict JSON: NaN and infinity as strings."""
        return [
            str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for value in astuple(self)
        ]

    @classmethod
    def of(cls, values: Sequence[Any]) -> "StepRecord":
        """Return the record with these fields, as returned by `as_list`."""
        step, batch, chain, loss, norm, applied = values
        return cls(step, batch, chain, float(loss), None if norm is None else float(norm), applied)


def batch_sum(indices: Sequence[range], rows: Sequence[Rows]) -> int:
    """Return the fingerprint of this rank's sequences; sum over ranks modulo `MODULUS`."""
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
    """Return the chain extended by one batch."""
    return hashlib.blake2b(f"{before} {batch % MODULUS}".encode(), digest_size=8).hexdigest()
