"""Matrix products in bf16 and fp16 on a CPU that has no instructions for them.

There torch emulates them, at a fifth of the speed of fp32 (measured on AVX-512 without BF16).
Multiplied in fp32 and rounded at the end, the result is the same or closer to the exact one: such
units add up in fp32 too. Weights, activations and what is kept for the backward pass stay as they
are; elsewhere nothing changes.
"""

from functools import lru_cache
from types import MethodType
from typing import Any

import torch

__all__ = ["add_product", "multiply", "product_dtype", "speed_up_products"]

UNITS = {  # any of these, as torch.cpu.get_capabilities() names them, multiplies in the precision
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
    """Return the precision in which `tensor` is multiplied fastest: its own, or fp32."""
    if tensor.device.type == "cpu" and _emulated(tensor.dtype):
        return torch.float32
    return tensor.dtype


def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return a @ b, multiplied in the fastest precision and rounded to that of `a`."""
    dtype = product_dtype(a)
    return (a.to(dtype) @ b.to(dtype)).to(a.dtype)


def add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Add a @ b to `total`, which may be of a higher precision."""
    if a.dtype == total.dtype:
        torch.addmm(total, a, b, out=total)  # addmm_ is not seen by the counter of FLOPs
    else:
        total += a @ b


class _Linear(torch.autograd.Function):
    """x W^T + b; x and W are kept in their own precision."""

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
    """Let the linear layers of `model` multiply in fp32 where that is faster; return how many."""
    changed = 0
    for module in model.modules():
        if type(module) is torch.nn.Linear and product_dtype(module.weight) != module.weight.dtype:
            module.forward = MethodType(_forward, module)
            changed += 1
    return changed


def _forward(module: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return _Linear.apply(x, module.weight, module.bias)
