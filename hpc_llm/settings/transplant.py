"""Settings of the vocabulary transplant (`conf/transplant/`)."""

from dataclasses import dataclass

from hpc_llm.settings.checks import require_choice

__all__ = ["TransplantSettings"]

RECIPES = ("mean", "random")


@dataclass(kw_only=True)
class TransplantSettings:
    """How rows of the new vocabulary are initialised from the old one."""

    mode: str
    """replace: the new vocabulary takes the old one's place."""
    input: str
    """Embedding rows without a namesake: mean of their old pieces, or random (the control)."""
    output: str
    """The same for the LM head; with tied embeddings it must equal `input`."""

    def __post_init__(self) -> None:
        """Check the values."""
        require_choice("transplant.mode", self.mode, ("replace",))
        require_choice("transplant.input", self.input, RECIPES)
        require_choice("transplant.output", self.output, RECIPES)
