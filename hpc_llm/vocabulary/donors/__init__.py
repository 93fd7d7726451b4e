"""Donors: vectors of the new tokens from elsewhere than the base model, one file each.

`donors/NAME.py` defines `vectors(text, surfaces, dimensions, settings) -> Donor`, and may define
`check(settings)`, which is called when the configuration is composed; so the module imports numpy
and the like inside functions. No other code refers to one by name.
"""

import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from hpc_llm.rundir.choices import choice_names, load_choice
from hpc_llm.settings import DonorSettings
from hpc_llm.settings.checks import require_choice

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Donor", "Vectors", "check_donor", "donor_names", "donor_of"]


@dataclass(frozen=True)
class Donor:
    """Vectors of the tokens of a vocabulary."""

    vectors: "np.ndarray"
    """float64 (vocab_n, q), the most important columns first."""
    counts: "np.ndarray"
    """How often each token is in the text, int64 (vocab_n,)."""
    known: "np.ndarray"
    """Which tokens have a vector, bool (vocab_n,)."""

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that are equal for equal vectors and counts."""
        import numpy as np

        digest = hashlib.sha256()
        for values in (self.vectors, self.counts, self.known):
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()[:16]


class Vectors(Protocol):
    """The function `vectors` of a file in this folder."""

    def __call__(
        self,
        text: "Iterable[np.ndarray]",
        surfaces: Sequence[bytes | None],
        dimensions: int,
        settings: DonorSettings,
    ) -> Donor:
        """Return vectors of `dimensions` or fewer for the tokens of the new vocabulary.

        `surfaces` are their texts, None for special tokens. `text` yields the token ids (length,)
        of each document of the training text, each time it is iterated.
        """


def donor_names() -> list[str]:
    """Return the names of all donors, including those of plug-in folders."""
    return choice_names(sys.modules[__name__])


def donor_of(name: str) -> Vectors:
    """Return the function of the donor `name`. Raises `UserError` for an unknown one."""
    function: Vectors = load_choice(sys.modules[__name__], name, "vectors").vectors
    return function


def check_donor(settings: DonorSettings) -> None:
    """Raise `UserError` for an unknown donor, and for settings or packages that it lacks."""
    require_choice("transplant.donor.kind", settings.kind, donor_names())
    module = load_choice(sys.modules[__name__], settings.kind, "vectors")
    if hasattr(module, "check"):
        module.check(settings)
