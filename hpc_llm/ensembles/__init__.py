"""Ensembles of adapters, one file each: from several LoRA adapters to one.

`ensembles/NAME.py` defines `Settings`, a dataclass whose values are in `conf/compose/NAME.yaml`,
and `combine(adapters, settings, loss) -> Combined`. No other code refers to an ensemble by name.
Listing them does not import torch. Factors and exact sums are in `hpc_llm.ensembles._algebra`.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from hpc_llm.rundir.choices import choice_names, load_choice

if TYPE_CHECKING:
    from hpc_llm.ensembles._algebra import Factors

__all__ = ["Adapters", "Combined", "Ensemble", "Loss", "ensemble_names", "load_ensemble"]

Adapters = Mapping[str, Mapping[str, "Factors"]]
"""For each adapter, by name, the factors of its layers, by the name of the linear layer."""


@dataclass(frozen=True, kw_only=True)
class Combined:
    """One adapter made of several."""

    layers: Mapping[str, "Factors"]
    """Its factors by the name of the linear layer, scale included (alpha = r)."""
    weights: Mapping[str, float]
    """The weight w_i of each adapter."""


Loss = Callable[[Combined], float]
"""The loss in bits per byte of the base model with a combined adapter, for those that search."""


class Ensemble(Protocol):
    """The module of an ensemble."""

    Settings: type[Any]
    """Its settings."""

    def combine(self, adapters: Adapters, settings: Any, loss: Loss | None) -> Combined:
        """Combine at least one adapter. Raises `UserError` for adapters that do not fit."""


def ensemble_names() -> list[str]:
    """Return the names of all ensembles, including those of plug-in folders."""
    return choice_names(sys.modules[__name__])


def load_ensemble(name: str) -> Ensemble:
    """Return the module of the ensemble `name`. Raises `UserError` for an unknown one."""
    module: Ensemble = load_choice(sys.modules[__name__], name, "Settings", "combine")
    return module
