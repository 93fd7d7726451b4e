"""Initialisations: how rows of tokens start that the old vocabulary does not have, one file each.

`initial/NAME.py` holds `rows(old, tokens) -> (n, d)`, an `Initialisation`. Nothing else in the code
names one. Listing them imports no torch.
"""

import sys
from typing import TYPE_CHECKING, Protocol

from hpc_llm.rundir.choices import choice_names, load_choice
from hpc_llm.settings import TransplantSettings
from hpc_llm.settings.checks import require_choice

if TYPE_CHECKING:
    import torch

    from hpc_llm.vocabulary.rows import NewTokens

__all__ = ["Initialisation", "check_transplant", "initial_names", "initialisation"]


class Initialisation(Protocol):
    """The function `rows` of a file in this folder."""

    def __call__(self, old: "torch.Tensor", tokens: "NewTokens") -> "torch.Tensor":
        """Return the rows (n, d) in fp32 of the n new `tokens`, in their order.

        `old` are the rows (vocab_o, d) of the old vocabulary in fp32, of the input embeddings or
        the LM head; they must not be changed. The result depends on the arguments only: random
        numbers come from `tokens.seed`.
        """


def initial_names() -> list[str]:
    """Return the names of all initialisations, those of plug-in folders included."""
    return choice_names(sys.modules[__name__])


def initialisation(name: str) -> Initialisation:
    """Return the function of the initialisation `name`. Raises `UserError` for an unknown one."""
    function: Initialisation = load_choice(sys.modules[__name__], name).rows
    return function


def check_transplant(settings: TransplantSettings) -> None:
    """Raise `UserError` for an initialisation that does not exist. Imports no torch."""
    names = initial_names()
    require_choice("transplant.input", settings.input, names)
    require_choice("transplant.output", settings.output, names)
