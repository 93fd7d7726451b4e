"""compose=lep: learned embedding propagation, an adapted vocabulary for an instruct model.

Tikhomirov and Chernyshev 2024, arXiv 2412.21140. The result has the layers of the instruct model
and the embeddings of the adapted model, mapped by P (see `hpc_llm.vocabulary.lep`). No training.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_llm.ensembles._sources import check_models
from hpc_llm.settings import RunConfig
from hpc_llm.settings.checks import require_choice
from hpc_llm.settings.compose import ModelsSettings

__all__ = ["Settings", "check", "compose"]

VARIANTS = ("full", "overlap", "swap")


@dataclass(kw_only=True)
class Settings(ModelsSettings):
    """Settings of learned embedding propagation."""

    variant: str
    """full: fit P to all tokens of the new vocabulary, new ones by the means of their old pieces |
    overlap: to the tokens in both vocabularies | swap: P = I, the embeddings as they are."""

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        require_choice("compose.variant", self.variant, VARIANTS)


def check(settings: Settings, cfg: RunConfig) -> None:
    """Raise `UserError` for models that do not fit, before anything is computed."""
    check_models(settings, cfg.model)


def compose(folder: Path, settings: Settings, cfg: RunConfig) -> dict[str, Any]:
    """Write `model/` and lep.json into `folder`; return the entries of the record."""
    from hpc_llm.ensembles._lep import propagate_embeddings

    return propagate_embeddings(folder, settings, settings.variant, cfg)
