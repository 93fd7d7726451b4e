"""Measures of a model at one point of the recipe: the content of `evaluate/POINT.json`.

A measure is a number with its interval, unit and direction, named `KIND/TEXT` (`bpb/target`). To
add one, write a function from `Evaluated` to named measures and list it in
`hpc_llm.stages.evaluate.MEASURES`: summary, report page, model card, sweep table and W&B show every
measure that the files hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpc_llm.evaluation.bootstrap import DocumentLosses
from hpc_llm.evaluation.forgetting import delta_bpb
from hpc_llm.rundir import publish, readable, system_errors, temporary_beside
from hpc_llm.settings.corpus import LANGUAGES

if TYPE_CHECKING:
    from hpc_llm.evaluation.bits_per_byte import Bpb

__all__ = [
    "Evaluated",
    "Measure",
    "bits_per_byte_measures",
    "forgetting_measures",
    "language_columns",
    "language_view",
    "load_losses",
    "save_losses",
    "task_measures",
]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number of an evaluation."""

    value: float
    low: float | None = None
    """95 % interval, lower bound; None: unknown."""
    high: float | None = None
    """95 % interval, upper bound."""
    n: int
    """Sample size: documents, questions, ..."""
    unit: str
    """Unit, as on the axis of a plot: bits per byte."""
    better: str
    """lower | higher."""
    chance: float | None = None
    """Value of a random guess; None: there is none."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a direction other than lower or higher."""
        if self.better not in ("lower", "higher"):
            raise ValueError(f"better={self.better}: must be lower or higher")

    @property
    def at_chance(self) -> bool:
        """Whether its interval contains `chance`; without an interval it is not above it."""
        if self.chance is None:
            return False
        if self.low is None or self.high is None:
            return True
        return self.low <= self.chance <= self.high

    def as_dict(self) -> dict[str, Any]:
        """Return its fields as written to files; `chance` only if there is one."""
        return {key: v for key, v in asdict(self).items() if key != "chance" or v is not None}


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A model at one point, the input of measures; equal on all ranks."""

    model: Any
    """The model, on its device."""
    tokenizer: Any
    """Its tokenizer."""
    texts: "Mapping[str, list[str]]"
    """Test documents of target, source and each source of the corpus; those without are absent."""
    losses: "Mapping[str, Bpb]"
    """Bits per byte of the same documents, with the loss of each."""
    known: Sequence[str] = LANGUAGES[1:]
    """Texts in languages that the base model knows, on which forgetting is measured."""
    base: Mapping[str, DocumentLosses] | None
    """Losses of the base model on the same documents; None at the base model itself."""
    seed: int
    """Seed of the bootstrap."""
    tasks: Mapping[str, Measure] = field(default_factory=dict)
    """The measure of each benchmark task and suite; empty at points without tasks."""
    task_changes: Mapping[str, Measure] = field(default_factory=dict)
    """Changes of these from the base model, paired by question; those at chance are absent."""
    samples: list[dict[str, str]] = field(default_factory=list)
    """Continuations of prompts: `prompt`, `text`, `stage`; empty before the corrected point."""
    note: str = ""
    """What of the documents was cut, for the log line."""


def bits_per_byte_measures(evaluated: Evaluated) -> dict[str, Measure]:
    """Return `bpb/TEXT`: bits per byte of target, source and each source of the corpus."""
    return {
        f"bpb/{language}": _measure(bpb, len(bpb.nll)) for language, bpb in evaluated.losses.items()
    }


def forgetting_measures(evaluated: Evaluated) -> dict[str, Measure]:
    """Return `forgetting/TEXT`: rise of bits per byte over the base model, paired by document.

    Of every text in a language that the base model knows, at every point after the base model.
    Bits per byte and pairing by document hold across tokenizers. Raises `UserError` when the base
    model was evaluated on other documents.
    """
    base = evaluated.base or {}
    found = {}
    for language in evaluated.known:
        if language in base and language in evaluated.losses:
            after = evaluated.losses[language]
            change = delta_bpb(base[language], after, evaluated.seed)
            found[f"forgetting/{language}"] = _measure(change, len(after.nll))
    return found


def task_measures(evaluated: Evaluated) -> dict[str, Measure]:
    """Return `task/NAME`, the measure of each task, and `change/NAME`, its change from the base."""
    scores = {f"task/{name}": measure for name, measure in evaluated.tasks.items()}
    return scores | {f"change/{name}": found for name, found in evaluated.task_changes.items()}


def _measure(interval: Any, documents: int) -> Measure:
    """Return bits per byte as a measure; a single document has no interval."""
    low, high = (interval.low, interval.high) if documents > 1 else (None, None)
    return Measure(
        value=interval.value, low=low, high=high, n=documents, unit="bits per byte", better="lower"
    )


def language_view(losses: "Mapping[str, Bpb]") -> dict[str, dict[str, Any] | None]:
    """Return bits per byte by language, for readers of the older keys of `evaluate/POINT.json`."""
    fields = ("value", "low", "high", "bytes")
    return {
        language: {key: asdict(losses[language])[key] for key in fields}
        | {"documents": len(losses[language].nll)}
        if language in losses
        else None
        for language in LANGUAGES
    }


def language_columns(evaluations: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return `LANGUAGE_bpb[POINT]`, for readers of the older keys of `summary.json`.

    `evaluations` are the contents of `evaluate/POINT.json` by point.
    """
    return {
        f"{language}_bpb": {
            point: (found[language] or {}).get("value") for point, found in evaluations.items()
        }
        for language in LANGUAGES
    }


def save_losses(path: Path, losses: Mapping[str, DocumentLosses]) -> None:
    """Write the loss of each document to `path` (.npz), atomically.

    Arrays: `LANGUAGE.nll` in nats, float64 (documents,), and `LANGUAGE.bytes`, int64 (documents,).
    """
    arrays: dict[str, np.ndarray] = {}
    for language, found in losses.items():
        arrays |= {f"{language}.nll": found.nll, f"{language}.bytes": found.byte_counts}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    with system_errors(path), temporary.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **arrays)
    publish(temporary, path)


def load_losses(path: Path) -> dict[str, DocumentLosses]:
    """Read losses written by `save_losses`; no pickle is loaded."""
    with readable(path), np.load(path, allow_pickle=False) as arrays:
        languages = [name.removesuffix(".nll") for name in arrays.files if name.endswith(".nll")]
        return {
            language: DocumentLosses(
                nll=arrays[f"{language}.nll"], byte_counts=arrays[f"{language}.bytes"]
            )
            for language in languages
        }
