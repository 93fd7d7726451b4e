"""The loss under tensor parallelism: each rank of a group computes that of a share of the tokens.

LM head and hidden states are whole on every rank. Without shares, each rank would compute all
logits: as much work as without tensor parallelism, and as much memory.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from hpc_llm.training.data.rows import IGNORED

__all__ = ["loss_by_shares"]

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def loss_by_shares(
    loss: Loss, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, group: Any
) -> torch.Tensor:
    """Return `loss(hidden, weight, labels)`, a sum over tokens, from the shares of all ranks.

    hidden (tokens, d), weight (vocabulary, d), labels (tokens,), the same on all ranks of `group`,
    as are the results: the loss and its gradients (collective).
    """
    size, rank = group.size(), group.rank()
    missing = -len(labels) % size
    labels = F.pad(labels, (0, missing), value=IGNORED).chunk(size)[rank]
    share = _Share.apply(F.pad(hidden, (0, 0, 0, missing)), group)
    return _Total.apply(loss(share, _Shared.apply(weight, group), labels), group)


class _Share(torch.autograd.Function):
    """This rank's rows of x; its gradient has the rows of all ranks."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        return x.chunk(group.size())[group.rank()].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        parts = [torch.empty_like(gradients[0]) for _ in range(ctx.group.size())]
        torch.distributed.all_gather(parts, gradients[0].contiguous(), group=ctx.group)
        return torch.cat(parts), None


class _Shared(torch.autograd.Function):
    """The weight itself; its gradient is the sum over the ranks."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = gradients[0].contiguous()
        torch.distributed.all_reduce(total, group=ctx.group)
        return total, None


class _Total(torch.autograd.Function):
    """The sum over the ranks; its gradient is that of each summand."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, group: Any) -> torch.Tensor:
        total = loss.clone()
        torch.distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None
