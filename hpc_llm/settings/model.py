"""Settings of the foundation model (`conf/model/`)."""

from dataclasses import dataclass, field
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields, require_choice

__all__ = ["LARGE", "ModelSettings"]

LARGE = 10**9
"""Parameters above which a model is not trained with the defaults for a laptop."""

LONGEST = 1024  # times the positions of the base model
ROPE_TYPES = ("linear", "yarn")
ROPE_KEYS = ("rope_type", "factor", "attention_factor", "beta_fast", "beta_slow")

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
    rope_scaling: dict[str, Any] = field(default_factory=dict)
    """Stretch the positions of the adapted model for longer sequences, as in a `config.json`:
    {rope_type: yarn, factor: 4} (or linear) allows 4 times its max_position_embeddings; empty: no
    change."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "model")
        require_choice("model.attention", self.attention, ATTENTIONS)
        if self.rope_scaling:
            self._check_rope(self.rope_scaling)

    def _check_rope(self, scaling: dict[str, Any]) -> None:
        """Raise `UserError` for unknown keys and values of the rope scaling."""
        key = "model.rope_scaling"
        for name in scaling:
            require_choice(key, name, ROPE_KEYS)
        if scaling.get("rope_type") == "dynamic":
            raise UserError(
                f"{key}.rope_type",
                "dynamic",
                "its frequencies follow the longest document of a batch, so a document in a packed "
                "sequence would differ from the same document alone",
                "use yarn or linear",
            )
        require_choice(f"{key}.rope_type", str(scaling.get("rope_type")), ROPE_TYPES)
        factor = scaling.get("factor")
        if not isinstance(factor, int | float) or not 1 < factor <= LONGEST:
            rule = f"must be a number above 1 and at most {LONGEST}"
            raise UserError(f"{key}.factor", factor, rule, "for example 4")

    @property
    def stretch(self) -> float:
        """How many times more positions the adapted model has."""
        return float(self.rope_scaling.get("factor", 1))

    @property
    def label(self) -> str:
        """Name shown in reports."""
        return self.name or (self.path or "model").rstrip("/").rsplit("/", 1)[-1]
