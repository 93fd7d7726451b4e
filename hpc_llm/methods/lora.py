"""LoRA: low-rank adapters on linear layers, W = W0 + (alpha / r) B A (Hu et al. 2021, arXiv
2106.09685), optionally with fully trained embeddings."""

from dataclasses import dataclass
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.methods import Adapter, Description, Trains
from hpc_llm.settings.checks import count, positive
from hpc_llm.settings.stage import StageSettings

__all__ = ["METHOD", "LoraSettings"]


@dataclass(kw_only=True)
class LoraSettings(StageSettings):
    """Settings of LoRA."""

    rank: int = count(10**6)
    """Rank r: A is (r, in), B is (out, r)."""
    alpha: float = positive(1e6)
    """Updates are scaled by alpha / r."""
    targets: list[str]
    """Adapted linear layers, by the last part of their name; [all]: all of the body."""
    target_parameters: list[str]
    """Adapted weights of stacked experts, which are no layers, by the last parts of their names
    (experts.gate_up_proj); []: those of families whose names peft knows."""
    train_embeddings: bool
    """Also train input embedding and LM head, in full."""
    embedding_rate_ratio: float = positive(1e6)
    """Learning rate of these embeddings relative to that of the adapters."""
    lora_b_rate_ratio: float = positive(1e6)
    """Learning rate of the factors B relative to that of A (LoRA+; Hayou et al. 2024, arXiv
    2402.12354, recommend about 16)."""

    def check(self, key: str) -> None:
        """Raise `UserError` for wrong values."""
        super().check(key)
        if not self.targets:
            raise UserError(f"{key}.targets", "[]", "must name linear layers", "use [all] for all")
        if len(set(self.target_parameters)) < len(self.target_parameters):
            raise UserError(f"{key}.target_parameters", self.target_parameters, "has a name twice")


def _trains(stage: LoraSettings) -> Trains:
    return Trains(
        embedding=stage.train_embeddings,
        head=stage.train_embeddings,
        adapter=Adapter(
            label=f"LoRA r{stage.rank}",
            factors=(("in", stage.rank), (stage.rank, "out")),
            targets=tuple(stage.targets),
            stacked=tuple(stage.target_parameters),
        ),
        embedding_rate=stage.embedding_rate_ratio,
        adapter_rates={"lora_B": stage.lora_b_rate_ratio},
    )


def _peft(stage: LoraSettings, targets: list[str]) -> tuple[str, dict[str, Any]]:
    arguments = {"r": stage.rank, "lora_alpha": stage.alpha, "target_modules": targets}
    if stage.target_parameters:
        arguments["target_parameters"] = stage.target_parameters
    return "LoraConfig", arguments


METHOD = Description(settings=LoraSettings, trains=_trains, peft=_peft, has_phi=True)
