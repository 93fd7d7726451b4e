"""Special tokens, which the new vocabulary keeps from the base tokenizer by string.

Chat templates, stop conditions and data pipelines refer to special tokens by their strings; so the
new vocabulary holds the same strings, and only their ids differ.
"""

import re
from dataclasses import dataclass
from typing import Any

__all__ = ["SpecialTokens", "is_text", "special_tokens_of"]

ONE_PIECE = re.compile(r"[\n\t▁0-9]|<0x[0-9A-F]{2}>")
BLANK = re.compile(r"[\s▁]*")


def is_text(token: str) -> bool:
    """Return whether `token` is text that every vocabulary has: white space, a digit, a byte token.

    Some bases flag such a token as special. The new vocabulary has it as a piece of text already,
    and would lose text if it were a marker.
    """
    return bool(ONE_PIECE.fullmatch(token) or BLANK.fullmatch(token)) or "\0" in token


@dataclass(frozen=True)
class SpecialTokens:
    """Special tokens by role; the defaults are those of a vocabulary without a base model.

    A role may be a piece of text (a newline ends each document): it is that piece.
    """

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
        shared = self.unk in (self.bos, self.eos, self.pad, *self.additional)
        return "<unk>" if self.unk is None or shared or is_text(self.unk) else self.unk

    @property
    def markers(self) -> list[str]:
        """The tokens of `additional` that are no text."""
        return [token for token in self.additional if not is_text(token)]


def special_tokens_of(tokenizer: Any) -> SpecialTokens:
    """Return the special tokens of a transformers tokenizer.

    Added tokens without the special flag are kept only when the chat template contains them
    (`<tool_call>`); the others (runs of spaces, say) belong to the old vocabulary. For a base
    without EOS, EOS is its BOS, or `</s>`.
    """
    roles = {
        name: _piece(getattr(tokenizer, f"{name}_token", None))
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
    additional = tuple(token for token in others if not is_text(token))
    return SpecialTokens(roles["unk"], roles["bos"], eos, roles["pad"], additional)


def _piece(token: Any) -> str | None:
    """Return a role's token as the new vocabulary spells it; None if the base has none."""
    string = "" if token is None else str(token)
    return (string.replace(" ", "▁") if is_text(string) else string) or None
