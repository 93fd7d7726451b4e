"""What a causal model does around its head: found out by trying, not by a list of names.

The fused loss takes the logits as softcap(scale * hidden @ W^T). Whether that holds for a model is
asked of its own forward pass, with the body and the head replaced for a moment by numbers that are
known; so it needs no weights, and a model that does anything else gets the plain loss.
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
    """From the products of the head to the logits: cap * tanh(scale * z / cap), or scale * z."""

    scale: float = 1.0
    """Granite, Cohere and Falcon-H1 have one."""
    softcap: float | None = None
    """Gemma 2 has one."""

    def logits(self, products: torch.Tensor) -> torch.Tensor:
        """Return the logits of `products`, of any shape."""
        scaled = products * self.scale
        if self.softcap is None:
            return scaled
        return self.softcap * torch.tanh(scaled / self.softcap)


class _Output:
    """What stands in for the output of the body; all but the hidden states is absent."""

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
    """Return what `causal` does with the products of its head; None: nothing that is known here."""
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
        return None  # it wants more of its body than the hidden states
    softcap = getattr(causal.config.get_text_config(), "final_logit_softcapping", None)
    found = Head(softcap=softcap) if softcap else Head(scale=float(logits[0, 0, 0]))
    unchanged = len(given) == 1 and torch.equal(given[0].float(), hidden)
    same = unchanged and torch.allclose(logits.float(), found.logits(products), rtol=1e-5)
    return found if same else None
