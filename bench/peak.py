"""The speed of a large matrix product: an upper bound for a step."""

import time

import torch

from hpc_llm.surgery.loading import DTYPES

__all__ = ["measured_peak"]

PRODUCTS = 3


def measured_peak(precision: str) -> float:
    """Return FLOP/s of the fastest of some square products, in `precision` or in fp32.

    Both, because a CPU without native instructions for a precision is faster in fp32.
    """
    return max(_flops_per_second(DTYPES[name]) for name in {precision, "fp32"})


def _flops_per_second(dtype: torch.dtype) -> float:
    gpu = torch.cuda.is_available()
    size, device = (8192, "cuda") if gpu else (2048, "cpu")
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(PRODUCTS + 1):
        began = time.perf_counter()
        a @ b
        if gpu:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
