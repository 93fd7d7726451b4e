"""Settings of the foundation model (`conf/model/`)."""

from dataclasses import dataclass
from typing import Any

from hpc_llm.settings.checks import require_choice

__all__ = ["ModelSettings"]

ATTENTIONS = ("auto", "sdpa", "eager", "flash_attention_2")


@dataclass(kw_only=True)
class ModelSettings:
    """The pretrained model to adapt, and how to load it."""

    name: str | None
    """Name in reports; null: the last part of `path`."""
    path: str | None
    """Local folder in the Hugging Face layout, or a hub id; null: no weights yet."""
    revision: str | None
    """Branch, tag or commit on the hub; null: its default."""
    trust_remote_code: bool
    """Run code shipped with the model. Keep it off unless you have reviewed that code."""
    attention: str
    """Attention implementation of transformers: auto (sdpa where the model's class supports it,
    else eager), sdpa, eager or flash_attention_2."""
    architecture: dict[str, Any] | None
    """A Hugging Face `config.json` as a mapping: `plan` reads it, `pretrain` builds it; empty: the
    model's own file."""

    def __post_init__(self) -> None:
        """Check the values."""
        require_choice("model.attention", self.attention, ATTENTIONS)

    @property
    def label(self) -> str:
        """Name shown in reports."""
        return self.name or (self.path or "model").rstrip("/").rsplit("/", 1)[-1]
