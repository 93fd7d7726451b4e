"""Stretch the rotary positions of a model for longer sequences, by transformers' own rope scaling.

Linear interpolation (Chen et al. 2023, arXiv 2306.15595) divides all frequencies by the factor;
YaRN (Peng et al. 2023, arXiv 2309.00071) keeps the high ones and scales the attention. The values
are written to the model's configuration: every program that loads the model computes the same
frequencies.
"""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from hpc_llm.errors import UserError

__all__ = ["stretch_positions"]


def stretch_positions(config: PreTrainedConfig, scaling: Mapping[str, Any]) -> None:
    """Write `model.rope_scaling` to the configuration of a model that is saved and loaded again.

    Raises `UserError` for a model without one plain rotary embedding.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    if rope.get("rope_type") != "default":
        found = rope.get("rope_type", "none")
        raise UserError(
            "model.rope_scaling",
            scaling["rope_type"],
            f"{text.model_type} must have one rotary embedding that is not scaled, not {found}",
            "remove it",
        )
    before = int(text.max_position_embeddings)
    text.rope_parameters = {**rope, **scaling, "original_max_position_embeddings": before}
    text.max_position_embeddings = int(before * scaling["factor"])
