"""compose=chat_vector: the adapted model plus the difference of the instruct and the base model.

Huang et al. 2023, arXiv 2310.04799: W = W_adapted + weight (W_instruct - W_base) for every weight
of the layers; of embeddings and LM head, for the tokens that both vocabularies have. No training.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_llm.ensembles._sources import check_models
from hpc_llm.settings import RunConfig
from hpc_llm.settings.checks import number
from hpc_llm.settings.compose import ModelsSettings

__all__ = ["Settings", "check", "compose"]


@dataclass(kw_only=True)
class Settings(ModelsSettings):
    """Settings of the chat vector."""

    weight: float = number(-10, 10)
    """Factor of the chat vector; 1: all of it, 0: none."""


def check(settings: Settings, cfg: RunConfig) -> None:
    """Raise `UserError` for models that do not fit, before anything is computed."""
    check_models(settings, cfg.model)


def compose(folder: Path, settings: Settings, cfg: RunConfig) -> dict[str, Any]:
    """Write `model/` and chat_vector.json into `folder`; return the entries of the record."""
    from hpc_llm.ensembles._chat_vector import add_chat_vector

    return add_chat_vector(folder, settings, settings.weight, cfg)
