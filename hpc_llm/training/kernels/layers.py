"""Norms and gated MLPs that save fewer activations for the backward pass, on a CPU.

Saved activations are most of a step's memory in transformers models. Here the cheap ones are
recomputed: a norm saves only its input, a gated MLP only the two products before the gate (like
Liger Kernel on a GPU; Hsu et al. 2024, arXiv 2410.10989). The results are the same to rounding.
"""

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from transformers.activations import SiLUActivation

from hpc_llm.training.kernels.products import multiply

__all__ = ["keep_less"]

NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "MixtralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")
MLPS = ("LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP")

Gradients = tuple[torch.Tensor | None, ...]


def keep_less(model: torch.nn.Module) -> int:
    """Replace known norms and MLPs by the functions below, on a CPU; return how many."""
    changed = 0
    if next(model.parameters()).device.type != "cpu":
        return changed
    for module in model.modules():
        kind = type(module).__name__
        if kind in NORMS:
            module.forward = MethodType(_norm, module)
        elif kind in MLPS and isinstance(module.act_fn, SiLUActivation | torch.nn.SiLU):
            module.forward = MethodType(_mlp, module)
        else:
            continue
        changed += 1
    return changed


class _Norm(torch.autograd.Function):
    """y = w x / sqrt(mean(x^2) + eps) (Zhang & Sennrich 2019, equation 4), the mean in fp32."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = (norm.square_().div_(x.shape[-1]).add_(epsilon)).rsqrt_()  # (..., 1)
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Gradients:
        x, weight, scale = ctx.saved_tensors
        g, d_weight = gradients[0].float(), None
        if ctx.needs_input_grad[1]:
            d_weight = (x * scale).mul_(g).flatten(0, -2).sum(0).to(weight.dtype)
        g = g * weight
        along = (g * x).sum(-1, keepdim=True).mul_(scale**3 / x.shape[-1])
        return g.mul_(scale).addcmul_(x.float(), along, value=-1).to(x.dtype), d_weight, None


def _norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    return _Norm.apply(x, module.weight, module.variance_epsilon)


class _Gate(torch.autograd.Function):
    """silu(a) b (Shazeer 2020, equation 6)."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a, b)
        return F.silu(a).mul_(b)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Gradients:
        return _gate_gradients(gradients[0], *ctx.saved_tensors)


class _GateDown(torch.autograd.Function):
    """(silu(a) b) W^T."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a, b, weight)
        return multiply(F.silu(a).mul_(b), weight.T)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Gradients:
        a, b, weight = ctx.saved_tensors
        g, d_weight = gradients[0], None
        if ctx.needs_input_grad[2]:
            d_weight = multiply(g.flatten(0, -2).T, F.silu(a).mul_(b).flatten(0, -2))
        return *_gate_gradients(multiply(g, weight), a, b), d_weight


def _gate_gradients(
    g: torch.Tensor, a: torch.Tensor, b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of a and b where that of silu(a) b is `g`."""
    d_b = F.silu(a).mul_(g)
    return torch.ops.aten.silu_backward(g * b, a), d_b


def _mlp(module: Any, x: torch.Tensor) -> torch.Tensor:
    a, b, down = module.gate_proj(x), module.up_proj(x), module.down_proj
    if _is_plain_trained(down):
        return _GateDown.apply(a, b, down.weight)
    return down(_Gate.apply(a, b))


def _is_plain_trained(layer: torch.nn.Module) -> bool:
    """Return whether `layer` is a trained linear layer without bias, not partitioned by ZeRO-3.

    ZeRO-3 gathers a weight when its module is called. With a frozen weight nothing is saved anyway.
    """
    return (
        type(layer) is torch.nn.Linear
        and layer.bias is None
        and layer.weight.requires_grad
        and not hasattr(layer.weight, "ds_id")
    )
