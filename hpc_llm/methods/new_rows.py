"""New rows: train only the rows of input embedding and LM head for tokens missing in the base.

Only these rows have a non-zero gradient, and there is no weight decay, so all other rows stay
bit-identical.
"""

from hpc_llm.methods import Description, Trains
from hpc_llm.settings.stage import StageSettings

__all__ = ["METHOD"]

METHOD = Description(
    settings=StageSettings,
    trains=lambda stage: Trains(embedding=True, head=True, only_new_rows=True),
    after_transplant=True,
)
