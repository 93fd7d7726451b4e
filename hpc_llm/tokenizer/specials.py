"""Special tokens, which the new vocabulary keeps from the base tokenizer by string.

Chat templates, stop conditions and data pipelines refer to special tokens by their strings; so the
new vocabulary holds the same strings, and only their ids differ.
"""

from dataclasses import dataclass
from typing import Any

__all__ = ["SpecialTokens", "special_tokens_of"]


@dataclass(frozen=True)
class SpecialTokens:
    """Special tokens by role; the defaults are those of a vocabulary without a base model."""

    unk: str | None = "<unk>"
    """None: the base has none. The vocabulary has an unknown token all the same, which is never
    used, because byte tokens cover every text."""
    bos: str | None = "<s>"
    """Begins a document; may equal `eos`, as in GPT-2."""
    eos: str = "</s>"
    """Ends a document."""
    pad: str | None = None
    """Padding; None: the base has none."""
    additional: tuple[str, ...] = ()
    """All others: chat roles, tools, reserved ones."""

    @property
    def unk_piece(self) -> str:
        """The unknown token; a separate one where the base shares it with another role."""
        shared = self.unk is None or self.unk in (self.bos, self.eos, self.pad, *self.additional)
        return "<unk>" if shared or self.unk is None else self.unk


def special_tokens_of(tokenizer: Any) -> SpecialTokens:
    """Return the special tokens of a transformers tokenizer.

    Added tokens without the special flag are kept only when the chat template contains them
    (`<tool_call>`); the others (runs of spaces, say) belong to the old vocabulary. For a base
    without EOS, EOS is its BOS, or `</s>`.
    """
    roles = {
        name: None if (token := getattr(tokenizer, f"{name}_token", None)) is None else str(token)
        for name in ("unk", "bos", "eos", "pad")
    }
    template = getattr(tokenizer, "chat_template", None) or ""
    added = [
        str(token)
        for _, token in sorted(tokenizer.added_tokens_decoder.items())
        if token.special or str(token) in str(template)
    ]
    others = dict.fromkeys(t for t in added if t not in roles.values())
    eos = roles["eos"] or roles["bos"] or "</s>"
    return SpecialTokens(roles["unk"], roles["bos"], eos, roles["pad"], tuple(others))
