"""Settings of the vocabulary transplant (`conf/transplant/`)."""

from dataclasses import dataclass

from hpc_llm.settings.checks import check_fields, require_choice

__all__ = ["TransplantSettings"]


@dataclass(kw_only=True)
class TransplantSettings:
    """Initialisation of the new embeddings from the old ones.

    The initialisations are the files in `hpc_llm/vocabulary/initial/`; `check_transplant` there
    checks the names when the configuration is composed.
    """

    mode: str
    """replace: the new vocabulary replaces the old one."""
    input: str
    """Initialisation of the input embeddings of tokens missing in the old vocabulary."""
    output: str
    """The same for the LM head; with tied embeddings it must equal `input`."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "transplant")
        require_choice("transplant.mode", self.mode, ("replace",))
