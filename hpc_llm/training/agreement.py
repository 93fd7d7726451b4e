"""Check once, before the first step, that all ranks hold the same weights.

Ranks with different embeddings or adapters yield a plausible loss and a wrong model. Known causes:
an embedding resized under ZeRO-3 that stays local to each rank, adapters initialised from different
seeds, a rank that read a different file.
"""

from collections.abc import Mapping

import torch

from hpc_llm.errors import UserError
from hpc_llm.surgery.loading import gathered
from hpc_llm.training import process_group

__all__ = ["check_same", "fingerprint_of"]

CHUNK = 2**22  # elements at a time: the arithmetic takes eight bytes per element
FACTORS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)  # odd: the golden ratio and a prime, in 64 bits


def fingerprint_of(tensor: torch.Tensor) -> int:
    """Return a 64-bit hash of every bit of a tensor and its position, computed on its device.

    The sum over i of mix(x_i + i * a) * b modulo 2^64, with x_i the bits of element i. Integers
    wrap in torch, so the order of summation does not matter.
    """
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    flat = tensor.detach().contiguous().view(-1).view(bits)
    a, b = (factor - 2**64 for factor in FACTORS)  # as signed integers
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for start in range(0, len(flat), CHUNK):
        part = flat[start : start + CHUNK].long()
        place = torch.arange(start, start + len(part), device=flat.device)
        mixed = (part + place * a) * b
        total += ((mixed ^ (mixed >> 29)) * a).sum()
    return int(total)


def check_same(tensors: Mapping[str, torch.Tensor], rank: int) -> None:
    """Raise `UserError` naming rank and tensor if a rank's bits differ from rank 0's.

    Collective. Tensors partitioned by ZeRO-3 are gathered one at a time.
    """
    for name, tensor in tensors.items():
        with gathered([tensor], write=False):
            own = fingerprint_of(tensor)
        halves = [own & 0xFFFFFFFF, (own >> 32) & 0xFFFFFFFF]
        first = process_group.all_sum(halves if rank == 0 else [0, 0])
        other = process_group.all_sum([0 if halves == first else 1, 0 if halves == first else rank])
        if other[0]:
            which = f"rank {other[1]}" if other[0] == 1 else f"{other[0]} ranks"
            raise UserError(
                name,
                None,
                f"differs between rank 0 and {which} of this run before the first step",
                "make all nodes read the same model folder",
            )
