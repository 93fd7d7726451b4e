"""New rows: of input embeddings and LM head only the rows whose tokens the base model lacks train.

Their gradient alone is not 0, and nothing decays, so all other rows keep their bits.
"""

from hpc_llm.methods import Description, Trains
from hpc_llm.settings.stage import StageSettings

__all__ = ["METHOD"]

METHOD = Description(
    settings=StageSettings,
    trains=lambda stage: Trains(embedding=True, head=True, only_new_rows=True),
    after_transplant=True,
)
