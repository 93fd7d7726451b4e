"""Head training: train only the LM head."""

from hpc_llm.methods import Description, Trains
from hpc_llm.settings.stage import StageSettings

__all__ = ["METHOD"]

METHOD = Description(settings=StageSettings, trains=lambda stage: Trains(head=True))
