"""Full training: train all parameters."""

from dataclasses import dataclass

from hpc_llm.methods import Description, Trains
from hpc_llm.settings.checks import positive
from hpc_llm.settings.stage import StageSettings

__all__ = ["METHOD", "FullSettings"]


@dataclass(kw_only=True)
class FullSettings(StageSettings):
    """Settings of full training."""

    embedding_rate_ratio: float = positive(1e6)
    """Learning rate of input embeddings and LM head relative to that of the body."""


def _trains(stage: FullSettings) -> Trains:
    return Trains(body=True, embedding=True, head=True, embedding_rate=stage.embedding_rate_ratio)


METHOD = Description(settings=FullSettings, trains=_trains)
