"""The training loss: cross-entropy summed over tokens, divided by the whole global batch's tokens.

Dividing by one number for the whole step makes the loss and its gradient independent of the split
into ranks and gradient accumulation steps.
"""

from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from transformers import PreTrainedModel

from hpc_llm.training.data.rows import IGNORED
from hpc_llm.training.kernels.heads import Head, head_of
from hpc_llm.training.kernels.packed import packed_inputs
from hpc_llm.training.kernels.products import add_product, product_dtype
from hpc_llm.training.kernels.shares import loss_by_shares

__all__ = ["CausalLoss", "linear_cross_entropy"]

PLAIN = Head()
CHUNK_ELEMENTS = (
    2**24
)  # logits per chunk: 64 MiB in fp32; fewer would slow down the matrix products
ON_GPU = 4  # times as many on a GPU
ROWS_IN_CACHE = 16  # of logits on a CPU: each is traversed several times


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of -log softmax(h W^T)[y]; the gradient is computed chunk by chunk in the forward pass.

    A full (tokens, vocabulary) tensor is never materialised. With p = softmax(h W^T) - onehot(y)
    the gradients are dh = p W and dW = p^T h; dW is not computed if W is frozen. Tokens without a
    label are skipped. The softmax is in fp32 whatever the precision of the products. A soft cap c
    replaces the logits z by c tanh(z / c).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        softcap: float | None,
    ) -> torch.Tensor:
        dtype = product_dtype(hidden)
        w = weight.to(dtype)
        d_hidden = torch.zeros_like(hidden) if ctx.needs_input_grad[0] else None
        d_weight: torch.Tensor | None = None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        rows = max(1, CHUNK_ELEMENTS * (ON_GPU if hidden.is_cuda else 1) // len(w))
        logits = torch.empty((min(rows, len(hidden)), len(w)), dtype=dtype, device=w.device)
        for part in (labels != IGNORED).nonzero().squeeze(1).split(rows):
            h, y = hidden[part].to(dtype), labels[part, None]
            p = torch.mm(h, w.T, out=logits[: len(part)])  # (rows, vocabulary)
            few = len(p) if p.is_cuda else ROWS_IN_CACHE
            for products, of_rows in zip(p.split(few), y.split(few), strict=True):
                total += _to_gradient(products, of_rows, softcap)
            if d_hidden is not None:
                d_hidden[part] = (p @ w).to(d_hidden.dtype)
            if d_weight is not None:
                add_product(d_weight, p.T, h)
            elif ctx.needs_input_grad[1]:
                d_weight = (p.T @ h).float()
        ctx.gradients, ctx.dtypes = (d_hidden, d_weight), (hidden.dtype, weight.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("backward through this loss a second time is not supported")
        scaled = [  # in place: a second copy would be as large as the weight
            None if g is None else g.mul_(gradients[0].to(g.dtype)).to(dtype)
            for g, dtype in zip(ctx.gradients, ctx.dtypes, strict=True)
        ]
        ctx.gradients = None
        return *scaled, None, None


def _to_gradient(
    products: torch.Tensor, labels: torch.Tensor, softcap: float | None
) -> torch.Tensor:
    """Replace products (rows, vocabulary) by their gradient in place; return their summed loss."""
    z, slope = products.float(), None
    if softcap is not None:
        z.div_(softcap).tanh_()
        slope = 1 - z * z
        z *= softcap
    z -= z.amax(-1, keepdim=True)
    at_labels = z.gather(1, labels).sum()
    sums = z.exp_().sum(-1, keepdim=True)
    z /= sums
    z.scatter_add_(1, labels, torch.full_like(sums, -1))
    if slope is not None:
        z *= slope
    if z is not products:
        products.copy_(z)
    return sums.log().sum() - at_labels


def linear_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, head: Head = PLAIN
) -> torch.Tensor:
    """Return the summed cross-entropy (a scalar, nats) of `hidden @ weight.T` against `labels`.

    hidden (tokens, d), weight (vocabulary, d), labels (tokens,) with IGNORED for tokens without
    loss; `head` maps the product to logits. On a GPU liger-kernel is used if installed, unless only
    the head is trained: it then computes no gradient.
    """
    if head.scale != 1:
        hidden = hidden * head.scale
    liger = _liger() if hidden.is_cuda and hidden.requires_grad else None
    if liger is None:
        return _LinearCrossEntropy.apply(hidden, weight, labels, head.softcap)
    return _by_liger(liger, hidden, weight, labels, head.softcap)


def _by_liger(
    kind: Any,
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    softcap: float | None,
) -> torch.Tensor:
    """Return the loss by liger-kernel's module `kind`, gradients accumulated in fp32."""
    loss = kind(ignore_index=IGNORED, reduction="sum", softcap=softcap, accum_dtype=torch.float32)
    summed: torch.Tensor = loss(weight, hidden, labels)
    return summed


@cache
def _liger() -> Any:
    """The loss of liger-kernel (Hsu et al. 2024, arXiv 2410.10989), or None."""
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss
    except ImportError:
        return None
    return LigerFusedLinearCrossEntropyLoss


class CausalLoss(torch.nn.Module):
    """The module that the DeepSpeed engine runs: from a micro-batch to its summed loss."""

    def __init__(
        self,
        model: torch.nn.Module,
        causal: PreTrainedModel,
        zero_stage: int = 0,
        part: tuple[int, int] = (0, 1),
        tensor_group: Any = None,
    ) -> None:
        """`model` is trained (possibly with adapters); `causal` is the plain model inside it.

        `part` is the part of each row that this rank computes, and the number of parts;
        `tensor_group` are the ranks that split the layers of the model.
        """
        super().__init__()
        self.part, self.tensor_group = part, tensor_group
        self.model = model
        self._causal = [causal]  # in a list: its parameters are already those of `model`
        self.head = head_of(causal)
        if self.head is not None and zero_stage == 3:
            from deepspeed.runtime.zero import register_external_parameter

            # the head's own forward, which would gather its partitioned weight, is not called
            register_external_parameter(self, causal.get_output_embeddings().weight)

    def forward(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Return the summed cross-entropy in nats; all arguments are (rows, sequence_length).

        With several parts the sum is over those of this rank. Labels are shifted already, so a
        part needs nothing of the next one.
        """
        number, parts = self.part
        whole = {} if parts == 1 else {"row_positions": position_ids}
        if parts > 1:
            tensors = (input_ids, position_ids, labels)
            input_ids, position_ids, labels = (t.chunk(parts, dim=1)[number] for t in tensors)
        causal = self._causal[0]
        inputs = packed_inputs(causal, input_ids, position_ids) | whole
        if self.head is not None:
            hidden = causal.get_decoder()(**inputs).last_hidden_state  # (rows, length, d)
            weight = causal.get_output_embeddings().weight
            loss = partial(linear_cross_entropy, head=self.head)
            if self.tensor_group is not None:
                loss = partial(loss_by_shares, loss, group=self.tensor_group)
            return loss(hidden.flatten(0, 1), weight, labels.flatten())
        logits = self.model(**inputs).logits.float()  # (rows, length, vocabulary)
        return F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
