"""Matrix products in bf16 and fp16 on a CPU that has no instructions for them.

There torch emulates them at a fifth of the speed of fp32 (measured on AVX-512 without BF16).
Multiplying in fp32 and rounding at the end gives the same result or one closer to the exact one:
native units also accumulate in fp32. Weights, activations and tensors saved for the backward pass
keep their precision; other hardware is not affected.
"""

from functools import lru_cache
from types import MethodType
from typing import Any

import torch

__all__ = ["add_product", "multiply", "product_dtype", "speed_up_products"]

UNITS = {  # native support, by the names of torch.cpu.get_capabilities(): any is enough
    torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"),
    torch.float16: ("avx512_fp16", "amx_fp16", "fp16_arith"),
}


@lru_cache
def _emulated(dtype: torch.dtype) -> bool:
    if dtype not in UNITS:
        return False
    found = torch.cpu.get_capabilities()
    return not any(found.get(name) for name in UNITS[dtype])


def product_dtype(tensor: torch.Tensor) -> torch.dtype:
    """Return the fastest precision for multiplying `tensor`: its own, or fp32."""
    if tensor.device.type == "cpu" and _emulated(tensor.dtype):
        return torch.float32
    return tensor.dtype


def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return a @ b, computed in the fastest precision and rounded to that of `a`."""
    dtype = product_dtype(a)
    return (a.to(dtype) @ b.to(dtype)).to(a.dtype)


def add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Add a @ b to `total`, which may be of a higher precision."""
    if a.dtype == total.dtype:
        torch.addmm(total, a, b, out=total)  # FlopCounterMode does not see addmm_
    else:
        total += a @ b


class _Linear(torch.autograd.Function):
    """x W^T + b; x and W are saved in their own precision."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        y = multiply(x, weight.T)
        return y if bias is None else y.add_(bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        g = gradients[0]
        rows = g.flatten(0, -2)
        return (
            multiply(g, weight) if needs_x else None,
            multiply(rows.T, x.flatten(0, -2)) if needs_weight else None,
            rows.sum(0) if needs_bias else None,
        )


def speed_up_products(model: torch.nn.Module) -> int:
    """Make linear layers of `model` multiply in fp32 if that is faster; return how many."""
    changed = 0
    for module in model.modules():
        if type(module) is torch.nn.Linear and product_dtype(module.weight) != module.weight.dtype:
            module.forward = MethodType(_forward, module)
            changed += 1
    return changed


def _forward(module: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return _Linear.apply(x, module.weight, module.bias)
