"""Embedding training: train input embedding and LM head; freeze the body.

The first stage after a vocabulary transplant: the new embeddings adapt to the unchanged body (de
Vries and Nissim 2021, arXiv 2012.05628).
"""

from hpc_llm.methods import Description, Trains
from hpc_llm.settings.stage import StageSettings

__all__ = ["METHOD"]

METHOD = Description(settings=StageSettings, trains=lambda stage: Trains(embedding=True, head=True))
