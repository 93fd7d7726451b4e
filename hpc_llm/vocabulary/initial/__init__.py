"""Initialisations of the embeddings of new tokens, one file each.

`initial/NAME.py` defines `rows(old, tokens) -> (n, d)`, an `Initialisation`. No other code refers
to one by name. Listing them does not import torch.
"""

import sys
from typing import TYPE_CHECKING, Protocol

from hpc_llm.rundir.choices import choice_code, choice_names, load_choice
from hpc_llm.settings import TransplantSettings
from hpc_llm.settings.checks import require_choice
from hpc_llm.vocabulary import donors

if TYPE_CHECKING:
    import torch

    from hpc_llm.vocabulary.rows import NewTokens

__all__ = ["Initialisation", "check_transplant", "code_of", "initial_names", "initialisation"]


class Initialisation(Protocol):
    """The function `rows` of a file in this folder."""

    def __call__(self, old: "torch.Tensor", tokens: "NewTokens") -> "torch.Tensor":
        """Return the rows (n, d) of the n new `tokens`, in their order and any floating type.

        `old` are the rows (vocab_o, d) of the old vocabulary in the precision of the model, of the
        input embedding or the LM head; they must not be changed. Compute in fp32, but in chunks: a
        large matrix has gigabytes. The result depends only on the arguments: random numbers are
        seeded with `tokens.seed`.
        """


def initial_names() -> list[str]:
    """Return the names of all initialisations, including those of plug-in folders."""
    return choice_names(sys.modules[__name__])


def initialisation(name: str) -> Initialisation:
    """Return the function of the initialisation `name`. Raises `UserError` for an unknown one."""
    function: Initialisation = load_choice(sys.modules[__name__], name, "rows").rows
    return function


def code_of(settings: TransplantSettings) -> dict[str, dict[str, str]]:
    """Return what stands for the code of plug-in initialisations in fingerprints."""
    sides = {"input": settings.input, "output": settings.output}
    found = {side: choice_code(sys.modules[__name__], name) for side, name in sides.items()}
    codes = {f"{side}_initialisation": code for side, code in found.items() if code}
    donor = choice_code(donors, settings.donor.kind)
    return codes | ({"donor": donor} if donor else {})


def check_transplant(settings: TransplantSettings) -> None:
    """Raise `UserError` for an initialisation or donor that cannot be used. Imports no torch."""
    names = initial_names()
    require_choice("transplant.input", settings.input, names)
    require_choice("transplant.output", settings.output, names)
    for key in ("start", "output"):
        others = [name for name in names if name != "distilled"]
        require_choice(f"transplant.distilled.{key}", getattr(settings.distilled, key), others)
    donors.check_donor(settings.donor)
