"""Training methods: one file each, with a description used by all other packages.

`methods/NAME.py` defines the stage settings of method NAME, and `METHOD`, its `Description`.
Planning and accounting use it for trained parameters and cost, surgery for parameters to unfreeze
and peft adapters to add, training for learning rates. No other code refers to a method by name. No
torch here.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.rundir.choices import choice_code, choice_names, load_choice
from hpc_llm.settings.checks import require_choice
from hpc_llm.settings.stage import StageSettings

__all__ = [
    "ALL_LAYERS",
    "Adapter",
    "Description",
    "Trains",
    "code_of",
    "describe",
    "method_names",
    "settings_of",
    "trains",
]

ALL_LAYERS = ("all",)

Size = int | str
"""A length: a number, or "in" or "out", the inputs or outputs of the adapted linear layer."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What an adapter adds to a frozen linear layer of `in` inputs and `out` outputs."""

    label: str
    """Label in tables: LoRA r32."""
    factors: tuple[tuple[Size, Size], ...] = ()
    """Successive extra matrix products on the layer's input, as (inputs, outputs) of each. LoRA:
    (("in", r), (r, "out"))."""
    vectors: tuple[Size, ...] = ()
    """Element-wise factors. IA3: ("out",)."""
    targets: tuple[str, ...] = ALL_LAYERS
    """Adapted linear layers, by the last part of their name; ("all",): all of the body."""
    stacked: tuple[str, ...] = ()
    """Adapted weights of stacked experts, by the last parts of their names. The costs of such an
    adapter are counted on the model."""

    def __post_init__(self) -> None:
        """Raise `UserError` for a length that is neither a number nor "in" or "out"."""
        for length in (*(size for factor in self.factors for size in factor), *self.vectors):
            if length not in ("in", "out") and not (isinstance(length, int) and length > 0):
                rule = 'a length must be a positive integer, "in" or "out"'
                raise UserError(f"Adapter {self.label}", length, rule)

    def products(self, inputs: int, outputs: int) -> list[tuple[int, int]]:
        """Return the sizes (inputs, outputs) of the extra products of a layer."""
        sizes = {"in": inputs, "out": outputs}
        return [(_size(a, sizes), _size(b, sizes)) for a, b in self.factors]

    def parameters(self, inputs: int, outputs: int) -> int:
        """Return the number of parameters added to a layer."""
        sizes = {"in": inputs, "out": outputs}
        count = sum(a * b for a, b in self.products(inputs, outputs))
        return count + sum(_size(length, sizes) for length in self.vectors)

    @property
    def inner(self) -> int:
        """Intermediate values between the products, per token (LoRA: r)."""
        return sum(int(b) for _, b in self.factors[:-1])


def _size(length: Size, sizes: Mapping[str, int]) -> int:
    return length if isinstance(length, int) else sizes[length]


@dataclass(frozen=True, kw_only=True)
class Trains:
    """Trained parameters under a method and its settings."""

    body: bool = False
    """All parameters except embeddings and LM head."""
    embedding: bool = False
    """The input embeddings."""
    head: bool = False
    """The LM head; with tied weights it is the same tensor as the input embeddings."""
    only_new_rows: bool = False
    """Of embeddings and LM head, only rows of tokens that the base model did not have."""
    adapter: Adapter | None = None
    embedding_rate: float = 1.0
    """Learning rate of embeddings and head relative to that of body or adapter."""
    adapter_rates: Mapping[str, float] = field(default_factory=dict)
    """Relative learning rates of adapter parameters, by a part of their name."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """A training method."""

    settings: type[StageSettings]
    """Its settings; every field is documented, checked and has its value in
    `conf/method/NAME.yaml`."""
    trains: Callable[[Any], Trains]
    """Function from its settings to the trained parameters."""
    peft: Callable[[Any, list[str]], tuple[str, dict[str, Any]]] | None = None
    """Function from its settings and the names of the target layers to the name of a peft
    configuration class and its arguments; None: no adapter."""
    merges: str = "exact"
    """exact: its result can be merged into the weights without loss | never."""
    has_phi: bool = False
    """Whether its change is scaled by the merging factor phi."""
    after_transplant: bool = False
    """Whether it needs the transplanted vocabulary (rows that the base model did not have)."""

    def __post_init__(self) -> None:
        """Raise `UserError` for an unknown value of `merges`."""
        require_choice("METHOD.merges", self.merges, ("exact", "never"))


def method_names() -> list[str]:
    """Return the names of all methods."""
    return choice_names(sys.modules[__name__])


def describe(method: str) -> Description:
    """Return the description of a method. Raises `UserError` for an unknown one."""
    module = load_choice(sys.modules[__name__], method, "METHOD")
    description = module.METHOD
    if not isinstance(description, Description):
        raise UserError(str(module.__file__), None, "METHOD must be a Description", "see Extending")
    return description


def code_of(method: str) -> dict[str, str]:
    """Return what stands for the code of a plug-in method in fingerprints; {} for an own one."""
    return choice_code(sys.modules[__name__], method)


def settings_of(method: str, key: str) -> type[StageSettings]:
    """Return the settings class of the stage at `key` (`stages.NAME`). Raises `UserError`."""
    known = method_names()
    if method not in known:
        raise UserError(f"{key}.method", method, "unknown", f"choose one of {', '.join(known)}")
    return describe(method).settings


def trains(stage: StageSettings) -> Trains:
    """Return the trained parameters of a stage."""
    found = describe(stage.method).trains(stage)
    if not isinstance(found, Trains):
        raise UserError(
            f"method {stage.method}", None, f"trains() returned {found!r}", "see Trains"
        )
    return found
