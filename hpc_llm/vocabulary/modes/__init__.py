"""Vocabulary modes: which tokenizer the adapted model gets, one file each.

`modes/NAME.py` defines `MODE`, a `Mode`; `transplant.mode=NAME` selects it. A mode writes the
tokenizer; which rows of the embeddings are copied and how new ones are initialised is the same for
all (`hpc_llm.vocabulary.transplant`). Listing modes does not import torch.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_llm.errors import UserError
from hpc_llm.methods import trains
from hpc_llm.rundir.choices import choice_code, choice_names, load_choice
from hpc_llm.settings import RunConfig
from hpc_llm.settings.checks import require_choice

if TYPE_CHECKING:
    from hpc_llm.tokenizer.coder import Coder

__all__ = [
    "OF_MODES", "Base", "Mode", "Vocabulary", "adapted_rows", "check_mode", "mode_names", "mode_of",
    "mode_settings",
]  # fmt: skip

OF_MODES = ("extend", "optimise", "swap")
"""Fields of `TransplantSettings` that concern modes, not initialisations."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """What a mode builds the vocabulary from."""

    cfg: RunConfig
    path: Path | str
    """The base model: a folder or a hub id."""
    tokenizer: Any
    """Its tokenizer, as transformers loads it."""
    rows: int
    """Rows of its embeddings: its tokens, and padding to a round size."""
    texts: Callable[[str], Iterable[str]]
    """From target or source to the training documents in that language; there may be none."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The vocabulary of the adapted model."""

    tokenizer: Any
    """The tokenizer that was written, as transformers loads it."""
    coder: "Coder"
    """Encodes the training text; its `size` is the number of embedding rows."""
    old_ids: Sequence[int] | None = None
    """By row: the id in the base model's vocabulary, -1 for a new token. None: tokens are matched
    by their text."""
    report: Mapping[str, int] = field(default_factory=dict)
    """What was done to the base's vocabulary, for the record: added 16,384."""


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How the adapted model gets its vocabulary."""

    build: Callable[[Base, Path], Vocabulary]
    """Writes the tokenizer's files into a folder, from which `AutoTokenizer` loads it."""
    rows: Callable[[RunConfig, int], int]
    """From the configuration and the rows of the base model to those of the adapted model, without
    torch: `plan` uses it."""
    changes: bool = True
    """Whether the vocabulary changes; else model and tokenizer are those of the base."""
    trains_vocabulary: bool = False
    """Whether it trains a vocabulary of its own by all settings in `conf/tokenizer/`."""
    counts: tuple[str, ...] = ()
    """Fields of `TransplantSettings` on which the vocabulary depends: extend, swap."""
    check: Callable[[RunConfig], None] | None = None
    """Raises `UserError` for settings and a base model that it cannot use, before a run starts and
    without torch; the base may be a hub id that is not downloaded yet."""


def mode_names() -> list[str]:
    """Return the names of all modes, including those of plug-in folders."""
    return choice_names(sys.modules[__name__])


def mode_of(cfg: RunConfig) -> Mode:
    """Return the mode of a run. Raises `UserError` for an unknown one."""
    module = load_choice(sys.modules[__name__], cfg.transplant.mode, "MODE")
    mode = module.MODE
    if not isinstance(mode, Mode):
        raise UserError(str(module.__file__), None, "MODE must be a Mode", "see Extending")
    return mode


def adapted_rows(cfg: RunConfig, old: int) -> int:
    """Return the planned embedding rows of the adapted model for a base model of `old` rows."""
    return mode_of(cfg).rows(cfg, old)


def mode_settings(cfg: RunConfig) -> dict[str, Any]:
    """Return the settings of `transplant` on which the vocabulary depends, for fingerprints."""
    fields = asdict(cfg.transplant)
    code = choice_code(sys.modules[__name__], cfg.transplant.mode)
    own = {name: fields[name] for name in mode_of(cfg).counts}
    return {"mode": cfg.transplant.mode, **own, **({"mode_code": code} if code else {})}


def check_mode(cfg: RunConfig) -> None:
    """Raise `UserError` for an unknown mode, and for settings that do not fit it."""
    name = cfg.transplant.mode
    require_choice("transplant.mode", name, mode_names())
    mode = mode_of(cfg)
    if cfg.tokenizer.path is not None and not mode.trains_vocabulary:
        rule = f"transplant.mode={name} starts from the tokenizer of the base model"
        fix = "remove it, or use transplant=replace"
        raise UserError("tokenizer.path", cfg.tokenizer.path, rule, fix)
    if mode.check is not None:
        mode.check(cfg)
    if mode.changes:
        return
    for stage in cfg.adaptation:
        if trains(cfg.stages[stage]).only_new_rows:
            raise UserError(
                f"stages.{stage}.method",
                cfg.stages[stage].method,
                f"transplant.mode={name} adds no tokens whose rows could be trained",
                "use the method embeddings or lora, or another transplant.mode",
            )
