"""Compositions, one file each: a model or an adapter made of others, without training.

`ensembles/NAME.py` defines `Settings`, a dataclass whose values are in `conf/compose/NAME.yaml`,
and one of two functions. A composition of models defines `compose(folder, settings, cfg)`, and
`check(settings, cfg)` for what can be refused before anything is computed. An ensemble of adapters
defines `combine(adapters, settings, loss) -> Combined`. No other code refers to one by name. These
files import no torch at their top: `Settings` are read to compose a configuration. Factors and
exact sums of adapters are in `hpc_llm.ensembles._algebra`, models in `hpc_llm.ensembles._models`.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hpc_llm.ensembles._sources import model_folder, naming, settings_for
from hpc_llm.errors import UserError
from hpc_llm.rundir.choices import choice_code, choice_names, load_choice
from hpc_llm.settings import RunConfig

if TYPE_CHECKING:
    from hpc_llm.ensembles._algebra import Factors

__all__ = [
    "Adapters",
    "Combined",
    "Composition",
    "Ensemble",
    "Loss",
    "code_of",
    "composition",
    "ensemble_names",
    "load_ensemble",
    "model_folder",
    "naming",
    "settings_for",
    "settings_of",
]

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


class Composition(Protocol):
    """The module of a composition of models."""

    Settings: type[Any]
    """Its settings."""

    def check(self, settings: Any, cfg: RunConfig) -> None:
        """Raise `UserError` for input that does not fit; reads no weights, imports no torch."""

    def compose(self, folder: Path, settings: Any, cfg: RunConfig) -> dict[str, Any]:
        """Write `model/`, a model folder, and a report into the empty `folder`.

        Returns the entries of the record, with `line` for the console. Raises `UserError`.
        """


class Ensemble(Protocol):
    """The module of an ensemble of adapters."""

    Settings: type[Any]
    """Its settings."""

    def combine(self, adapters: Adapters, settings: Any, loss: Loss | None) -> Combined:
        """Combine at least one adapter. Raises `UserError` for adapters that do not fit."""


def ensemble_names() -> list[str]:
    """Return the names of all ensembles and compositions, including those of plug-in folders."""
    return choice_names(sys.modules[__name__])


def load_ensemble(name: str) -> Ensemble:
    """Return the module of the ensemble `name`. Raises `UserError` for an unknown one."""
    module: Ensemble = load_choice(sys.modules[__name__], name, "Settings", "combine")
    return module


def settings_of(name: str) -> type[Any]:
    """Return the settings class of a composition. Raises `UserError` for an unknown one."""
    settings: type[Any] = load_choice(sys.modules[__name__], name, "Settings").Settings
    return settings


def code_of(name: str) -> dict[str, str]:
    """Return what stands for the code of a plug-in in fingerprints; {} for an own composition."""
    return choice_code(sys.modules[__name__], name)


def composition(name: str) -> Composition:
    """Return the module of the composition of models `name`.

    Raises `UserError` for an unknown one, and for an ensemble of adapters.
    """
    module: Any = load_choice(sys.modules[__name__], name, "Settings")
    if not hasattr(module, "compose"):
        models = [n for n in ensemble_names() if n != name and _composes(n)]
        rule = "combines adapters, which can be done from Python only"
        raise UserError("compose", name, rule, f"choose one of {', '.join(models)}")
    found: Composition = module
    return found


def _composes(name: str) -> bool:
    return hasattr(load_choice(sys.modules[__name__], name, "Settings"), "compose")
