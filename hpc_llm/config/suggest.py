"""Hydra's errors as one line, with the nearest existing key."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.core.override_parser.types import Override

from hpc_llm.config.launchers import of_launcher
from hpc_llm.errors import UserError
from hpc_llm.rundir import conf_files
from hpc_llm.settings import RunConfig

__all__ = [
    "OPEN_ENDED",
    "explain",
    "known_keys",
    "nearest",
    "refuse_hydra",
]

# Open mappings, which accept any key
OPEN_ENDED = (
    "zero.extra.",
    "corpus.texts.",
    "evaluation.task_files.",
    "corpus.text_fields.",
    "model.architecture.",
    "budget.rates.",
    "hardware.peak_tflops.",
    "cluster.environment.",
    "launch.options.",
    "launch.parts.",
)


FEW = 8  # options that an error lists without looking for near ones


def known_keys(settings: Any = RunConfig, prefix: str = "") -> list[str]:
    """Return all dotted keys of the settings, including groups."""
    keys: list[str] = []
    for field in fields(settings):
        keys.append(f"{prefix}{field.name}")
        if is_dataclass(field.type):
            keys += known_keys(field.type, f"{prefix}{field.name}.")
    return keys


def nearest(word: str, known: Sequence[str]) -> str:
    """Return `did you mean X or Y?` for the nearest known names; empty if none is near."""
    ends = (f".{word}", f".{word.rsplit('.', 1)[-1]}")
    parent = f"{word.rpartition('.')[0]}."
    if word.startswith("stages.") and (own := [key for key in known if key.startswith(parent)]):
        names = [key.removeprefix(parent) for key in own]
        found = difflib.get_close_matches(word.removeprefix(parent), names, n=3, cutoff=0.6)
        elsewhere = [key for key in known if key.endswith(ends[1])][:3]
        near = [f"{parent}{name}" for name in found] or elsewhere
        return f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names)}"
    near = next(filter(None, ([k for k in known if k.endswith(end)][:3] for end in ends)), [])
    near = near or difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else ""


def refuse_hydra(overrides: Sequence[Override]) -> None:
    """Raise `UserError` for settings of Hydra itself, which is used only for composing.

    Above all for its launchers: without -m Hydra would ignore them and run on the login node. Also
    for `task=NAME`: tasks are no part of the configuration, but named in it.
    """
    for override in overrides:
        line = override.input_line or ""
        if override.key_or_group.split("@")[0] == "task":
            value, fix = override.get_value_element_as_str(), "use evaluation.tasks=[NAME]"
            raise UserError("task", value, "a run can have several tasks", fix)
        if of_launcher(override):
            raise UserError(
                line,
                None,
                "nothing would be submitted: Hydra uses launchers for sweeps (-m) only",
                "use launch=slurm, with -m for a sweep",
            )
        if f"{override.key_or_group.lstrip('+~').replace('/', '.')}.".startswith("hydra."):
            raise UserError(
                line,
                None,
                "Hydra is used only to compose the configuration",
                "use run= and runs_dir= to name the folder, -m to sweep, launch=slurm to submit",
            )


def explain(error: Exception, keys: list[str], stages: Sequence[str]) -> UserError:
    """Return the `UserError` for Hydra's error about one of the overridden `keys`.

    `stages` are the settings of the recipe's stages.
    """
    lines = str(error.__cause__ or error).splitlines()
    text = " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])
    if missing := re.search(r"Could not find '([\w@./-]+)/([^/']+)'", text):
        return _unknown_option(missing[1].partition("@")[0], missing[2])
    if replaced := re.match(r"Could not override '([^']+)'", text):
        return UserError(replaced[1], None, "is not composed yet", f"add it: +{replaced[1]}=...")
    for key in keys:
        group, at, package = key.partition("@")
        if group == "method" and not re.fullmatch(r"stages\.[^.]+", package):
            return UserError(
                key, None, "a method is chosen for a stage", "use +method@stages.NAME=METHOD"
            )
        if at and f"Multiple values for {key}" in text:
            fix = f"change it by {key}=..., without +, or use another name"
            return UserError(key, None, f"{package} exists already", fix)
    known = [*known_keys(), *stages]
    for key in keys:
        plain = key.split("@")[0].replace("/", ".")
        options = conf_files(plain.replace(".", "/"))
        if not options and plain not in known and not plain.startswith(OPEN_ENDED):
            hint = nearest(plain, known)
            return UserError(plain, None, "no such setting", hint or "see hpc-llm adapt --cfg job")
    full = str(getattr(error.__cause__ or error, "full_key", None) or "settings")
    if "Ambiguous value" in text:
        fix = "write a list as KEY=[A,B], or a sweep with -m"
    elif "float' could not be converted to Integer" in text:
        fix = "write integers in full: 5_000_000_000"
    else:
        fix = "hpc-llm adapt --cfg job shows all settings and their values"
    return UserError(full, None, text, fix)


def _unknown_option(group: str, name: str) -> UserError:
    """Return the error for an option of a config group that has no file."""
    options = list(conf_files(group))
    near = difflib.get_close_matches(name, options, n=3, cutoff=0.6) if options[FEW:] else []
    fix = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(options)}"
    return UserError(group, name, f"there is no conf/{group}/{name}.yaml", fix)
