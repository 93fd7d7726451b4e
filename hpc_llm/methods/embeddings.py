"""Embedding training: input embeddings and LM head train, the body is frozen.

The first stage after a vocabulary transplant: the new rows fit themselves to the body, which is
not disturbed meanwhile (de Vries and Nissim 2021, arXiv 2012.05628).
"""

from hpc_llm.methods import Description, Trains
from hpc_llm.settings.stage import StageSettings

__all__ = ["METHOD"]

METHOD = Description(settings=StageSettings, trains=lambda stage: Trains(embedding=True, head=True))
