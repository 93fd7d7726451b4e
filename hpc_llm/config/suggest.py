"""Hydra's errors told in one line, with the nearest key that exists."""

import difflib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from hpc_llm.config.launchers import of_launcher
from hpc_llm.errors import UserError
from hpc_llm.settings import RunConfig

__all__ = ["OPEN_ENDED", "explain", "known_keys", "refuse_hydra"]

# Mappings that take any key
OPEN_ENDED = (
    "zero.extra.",
    "model.architecture.",
    "budget.rates.",
    "hardware.peak_tflops.",
    "cluster.environment.",
    "launch.options.",
    "launch.parts.",
)


def known_keys(settings: Any = RunConfig, prefix: str = "") -> list[str]:
    """Return every dotted key of the settings, groups included."""
    keys: list[str] = []
    for field in fields(settings):
        keys.append(f"{prefix}{field.name}")
        if is_dataclass(field.type):
            keys += known_keys(field.type, f"{prefix}{field.name}.")
    return keys


def refuse_hydra(overrides: Sequence[Override]) -> None:
    """Raise `UserError` for settings of Hydra's own, as it only composes here.

    Its launchers most of all: without -m Hydra would pass over them and run on the login node.
    """
    for override in overrides:
        if of_launcher(override):
            raise UserError(
                f"{override.input_line}: nothing would be submitted, Hydra asks its launcher for "
                "sweeps (-m) only; give launch=slurm, with -m for a sweep"
            )
        if f"{override.key_or_group.lstrip('+~').replace('/', '.')}.".startswith("hydra."):
            raise UserError(
                f"{override.input_line}: Hydra only composes here; run= and runs_dir= name the "
                "folder, -m sweeps, launch=slurm submits"
            )


def explain(error: Exception, keys: list[str], conf: Path) -> UserError:
    """Return the `UserError` that tells what is wrong with one of the overridden `keys`."""
    text = str(error.__cause__ or error).splitlines()[0]
    known = known_keys()
    for key in keys:
        plain = key.split("@")[0].replace("/", ".")
        options = sorted(p.stem for p in (conf / plain.replace(".", "/")).glob("*.yaml"))
        if options and f"'{plain}/" in text:
            return UserError(f"{text.rstrip('.')}; known for {plain}: {', '.join(options)}")
        if not options and plain not in known and not plain.startswith(OPEN_ENDED):
            near = [name for name in known if name.endswith(f".{plain}")][:3]
            near = near or difflib.get_close_matches(plain, known, n=3, cutoff=0.6)
            hint = f"did you mean {' or '.join(near)}?" if near else "see hpc-llm adapt --cfg job"
            return UserError(f"{plain}: no such setting; {hint}")
    if "Ambiguous value" in text:
        return UserError(f"{text}; write a list as KEY=[A,B], or a sweep with -m")
    if "float' could not be converted to Integer" in text:
        text += " (whole numbers are written out: 5_000_000_000)"
    full = getattr(error.__cause__ or error, "full_key", None)
    place = f"{full}: " if full and str(full) not in text else ""
    return UserError(f"{place}{text}; hpc-llm adapt --cfg job shows all settings and their values")
