"""The training loss: cross-entropy summed over tokens, divided by the whole global batch's tokens.

The division by one number for the whole step makes the loss and its gradient independent of how
the batch is divided into micro-steps and ranks.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from transformers import PreTrainedModel

from hpc_llm.training.shards import IGNORED

__all__ = ["CausalLoss", "linear_cross_entropy"]

CHUNK_ELEMENTS = 2**20  # logits held at once: 4 MiB in fp32, which stays in a CPU's cache


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of -log softmax(h W^T)[y], its gradient computed in the forward pass chunk by chunk.

    No full (tokens, vocabulary) tensor ever exists. With p = softmax(h W^T) - onehot(y) the
    gradients are dh = p W and dW = p^T h; dW is not computed when W is frozen.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        d_weight = (
            torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        )
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        rows = max(1, CHUNK_ELEMENTS // weight.shape[0])
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            h, y = hidden[part], labels[part]
            valid = (y != IGNORED)[:, None]
            index = y.clamp(min=0)[:, None]
            log_p = torch.log_softmax((h @ weight.T).float(), dim=-1)  # (rows, vocabulary)
            total -= (log_p.gather(1, index) * valid).sum()
            p = log_p.exp_()
            p.scatter_add_(1, index, torch.full_like(index, -1, dtype=p.dtype))
            p *= valid
            p = p.to(h.dtype)
            if d_hidden is not None:
                torch.mm(p, weight, out=d_hidden[part])
            if d_weight is not None:
                d_weight += p.T @ h
        ctx.save_for_backward(d_hidden, None if d_weight is None else d_weight.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        scale = gradients[0]
        return (
            None if d_hidden is None else d_hidden * scale.to(d_hidden.dtype),
            None if d_weight is None else d_weight * scale.to(d_weight.dtype),
            None,
        )


def linear_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Return the summed cross-entropy (a scalar, nats) of `hidden @ weight.T` against `labels`.

    hidden (tokens, d), weight (vocabulary, d), labels (tokens,) with IGNORED where no loss is.
    """
    return _LinearCrossEntropy.apply(hidden, weight, labels)


class CausalLoss(torch.nn.Module):
    """What the DeepSpeed engine runs: a batch in, its share of the step's loss out."""

    def __init__(self, model: torch.nn.Module, causal: PreTrainedModel, zero_stage: int) -> None:
        """`model` is what trains (perhaps with adapters), `causal` the plain model inside it."""
        super().__init__()
        self.model = model
        self._causal = [causal]  # in a list: its parameters are already those of `model`
        self.fused = zero_stage < 3 and _plain_head(causal)

    def forward(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Return the summed cross-entropy in nats; all arguments are (rows, sequence_length)."""
        inputs = {"input_ids": input_ids, "position_ids": position_ids, "use_cache": False}
        causal = self._causal[0]
        if self.fused:
            hidden = causal.base_model(**inputs).last_hidden_state  # (rows, length, d)
            weight = causal.get_output_embeddings().weight
            return linear_cross_entropy(hidden.flatten(0, 1), weight, labels.flatten())
        logits = self.model(**inputs).logits.float()  # (rows, length, vocabulary)
        return F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )


def _plain_head(causal: PreTrainedModel) -> bool:
    """Tell whether the logits are hidden @ W^T and nothing else."""
    head, config = causal.get_output_embeddings(), causal.config.get_text_config()
    scaled = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
    return (
        isinstance(head, torch.nn.Linear)
        and head.bias is None
        and not any(getattr(config, name, None) for name in scaled)
    )
