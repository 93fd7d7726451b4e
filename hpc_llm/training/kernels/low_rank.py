"""Linear layers with LoRA fused into one function, on a CPU.

peft computes W x, then B A x, scales it, and adds the two into a third tensor. Here B A x is
accumulated into W x in place, and the gradients likewise: one thin product each, without extra
passes over memory. The result is the same to rounding.
"""

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear

from hpc_llm.training.kernels.products import add_product, product_dtype

__all__ = ["join_adapters"]


def join_adapters(model: torch.nn.Module) -> int:
    """Fuse the adapted linear layers of `model`, on a CPU; return how many."""
    layers = [m for m in model.modules() if isinstance(m, Linear) and _is_plain(m)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)


def _is_plain(layer: Linear) -> bool:
    """Return whether `layer` is exactly W x + c + B A x, with a frozen unpartitioned W on a CPU.

    ZeRO-3 gathers a weight when the module that owns it is called.
    """
    base, (name, *others) = layer.base_layer, layer.active_adapters
    parts = (base, layer.lora_A[name], layer.lora_B[name])
    return (
        not others
        and all(type(part) is torch.nn.Linear for part in parts)
        and all(part.weight.device.type == "cpu" for part in parts)
        and not any(hasattr(part.weight, "ds_id") for part in parts)
        and parts[2].bias is None
        and not any(p.requires_grad for p in base.parameters())
        and isinstance(layer.lora_dropout[name], torch.nn.Identity)
        and name not in layer.lora_variant
    )


class _Adapted(torch.autograd.Function):
    """W x + c + B A x (Hu et al. 2021, equation 3), with W (out, in), A (r, in) and B (out, r)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
    ) -> torch.Tensor:
        dtype = product_dtype(x)
        rows = x.flatten(0, -2).to(dtype)
        y, low = rows @ weight.to(dtype).T, rows @ a.to(dtype).T  # (rows, out), (rows, r)
        if bias is not None:
            y += bias
        add_product(y, low, b.to(dtype).T)
        ctx.save_for_backward(x, weight, a, b, low.to(x.dtype))
        # not a view: some models change the output in place
        return torch.ops.aten._unsafe_view(y.to(x.dtype), [*x.shape[:-1], y.shape[-1]])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        dtype = product_dtype(x)
        g = gradients[0].flatten(0, -2).to(dtype)
        d_low = g @ b.to(dtype)  # (rows, r)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = g @ weight.to(dtype)
            add_product(d_x, d_low, a.to(dtype))
            d_x = d_x.to(x.dtype).view_as(x)
        d_a = (d_low.T @ x.flatten(0, -2).to(dtype)).to(a.dtype)
        d_b = (g.T @ low.to(dtype)).to(b.dtype)
        return d_x, None, None, d_a, d_b


def _forward(layer: Linear, x: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
    name = layer.active_adapters[0]
    a, b, base = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.base_layer
    without = layer.disable_adapters or layer.merged
    mixed = a.dtype != x.dtype or torch.is_autocast_enabled("cpu")
    if without or mixed or arguments or named:
        return Linear.forward(layer, x, *arguments, **named)
    scaled = b.to(product_dtype(x)) * layer.scaling[name]
    return _Adapted.apply(x, base.weight, base.bias, a, scaled)
