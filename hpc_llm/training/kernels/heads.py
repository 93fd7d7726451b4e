"""Detect logit scaling and soft capping around the LM head by a probe, not by model names.

The fused loss computes the logits as softcap(scale * hidden @ W^T). To check this for a model, its
own forward pass is run with body and head temporarily replaced by known values. This needs no
weights; a model that does anything else uses the plain loss.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

__all__ = ["Head", "head_of"]


@dataclass(frozen=True)
class Head:
    """The map from head outputs z to logits: cap * tanh(scale * z / cap), or scale * z."""

    scale: float = 1.0
    """Used by Granite, Cohere and Falcon-H1."""
    softcap: float | None = None
    """Used by Gemma 2."""

    def logits(self, products: torch.Tensor) -> torch.Tensor:
        """Return the logits of `products`, of any shape."""
        scaled = products * self.scale
        if self.softcap is None:
            return scaled
        return self.softcap * torch.tanh(scaled / self.softcap)


class _Output:
    """A stand-in for the output of the body: hidden states only, all else is None."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.last_hidden_state

    def __getattr__(self, name: str) -> None:
        return None


@contextmanager
def _replaced(module: torch.nn.Module, forward: Any) -> Iterator[None]:
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def head_of(causal: PreTrainedModel) -> Head | None:
    """Return how `causal` maps its head's outputs to logits; None if it does anything else."""
    head, body = causal.get_output_embeddings(), causal.get_decoder()
    if not isinstance(head, torch.nn.Linear) or head.bias is not None or body is causal:
        return None
    hidden = torch.ones(1, 2, head.in_features)
    products = torch.linspace(-60, 60, head.out_features).repeat(1, 2, 1)
    products[..., 0] = 1.0  # its logit is the scale itself
    given: list[torch.Tensor] = []

    def head_forward(inputs: torch.Tensor) -> torch.Tensor:
        given.append(inputs)
        return products

    try:
        with _replaced(body, lambda *_, **__: _Output(hidden)), _replaced(head, head_forward):
            inputs = torch.zeros(1, 2, dtype=torch.int64)
            logits = causal(input_ids=inputs, use_cache=False).logits
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError):
        return None  # the model needs more of its body's output than the hidden states
    softcap = getattr(causal.config.get_text_config(), "final_logit_softcapping", None)
    found = Head(softcap=softcap) if softcap else Head(scale=float(logits[0, 0, 0]))
    unchanged = len(given) == 1 and torch.equal(given[0].float(), hidden)
    same = unchanged and torch.allclose(logits.float(), found.logits(products), rtol=1e-5)
    return found if same else None
