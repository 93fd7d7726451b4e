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
    "refuse_groups",
    "refuse_hydra",
    "wrong_value",
]

# Open mappings, which accept any key
OPEN_ENDED = (
    "zero.extra.",
    "corpus.texts.",
    "corpus.sources.",
    "tokenizer.parity.",
    "evaluation.task_files.",
    "corpus.text_fields.",
    "model.architecture.",
    "model.rope_scaling.",
    "budget.rates.",
    "hardware.peak_tflops.",
    "cluster.environment.",
    "launch.options.",
    "launch.parts.",
    "sbs.models.",
)


REMOVABLE = re.compile(  # stages, open mappings and what Hydra composes by a + or an experiment
    r"stages\.[^.]+|stages\.[^.]+\.(schedule|text)\..+|.+@stages\..+|experiment|"
    + "|".join(f"{re.escape(key)}.+" for key in OPEN_ENDED)
)
NOT_CONVERTED = re.compile(
    r"Value '(.*)' (?:of type '\w+' could not be converted to|is not a valid) (\w+)", re.DOTALL
)
KINDS = {"Integer": "an integer", "Float": "a number", "bool": "true or false"}
CFG_JOB = "hpc-llm adapt --cfg job shows all settings and their values"
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
    for `task=NAME` and `table=NAME`, which are no part of the configuration.
    """
    for override in overrides:
        line = override.input_line or ""
        if override.key_or_group.split("@")[0] == "task":
            value, fix = override.get_value_element_as_str(), "use evaluation.tasks=[NAME]"
            raise UserError("task", value, "a run can have several tasks", fix)
        if override.key_or_group.split("@")[0] == "table":
            value, fix = override.get_value_element_as_str(), "use hpc-llm table table=NAME"
            raise UserError("table", value, "a table has many runs", fix)
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


def refuse_groups(overrides: Sequence[Override]) -> None:
    """Raise `UserError` for an option without a name, and for removing what a run needs."""
    for override in overrides:
        key = override.key_or_group
        group = key.partition("@")[0]
        if override.is_delete():
            if not REMOVABLE.fullmatch(override.get_key_element().lstrip("~")):
                fix = "only training stages can: ~stages.NAME"
                raise UserError(override.input_line or key, None, "cannot be removed", fix)
        elif conf_files(group) and not override.is_sweep_override():
            value = override.value()
            if value is None and group == "experiment":
                continue
            for name in value if isinstance(value, list) else [value]:
                if str(name) not in conf_files(group):
                    raise _unknown_option(group, "null" if name is None else name or "''")


def explain(error: Exception, keys: list[str], stages: Sequence[str]) -> UserError:
    """Return the `UserError` for Hydra's error about one of the overridden `keys`.

    `stages` are the settings of the recipe's stages.
    """
    lines = str(error.__cause__ or error).splitlines() or [type(error).__name__]
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
    if several := re.search(r"Ambiguous value for argument '([^=']+)=(.*)'", text):
        fix = "write a list as KEY=[A,B], or a sweep with -m"
        return UserError(several[1], several[2], "has several values", fix)
    return wrong_value(error.__cause__ or error, keys[0] if len(keys) == 1 else "settings")


def wrong_value(error: BaseException, key: str, fix: str = CFG_JOB) -> UserError:
    """Return the `UserError` for OmegaConf's error about a value; `key` if it names no setting."""
    full = str(getattr(error, "full_key", None) or key)
    text = " ".join(str(error).splitlines()[:1])
    if found := re.match(r"Key '(.*)' not in '\w+'", text):
        own = getattr(error, "object_type", None)
        names = [field.name for field in fields(own)] if is_dataclass(own) else []
        near = difflib.get_close_matches(found[1], names, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names)}"
        return UserError(full, None, "no such setting", hint if names else fix)
    if "is not a subclass of" in text:
        own = [name for name in known_keys() if name.startswith(f"{full}.")]
        hint = f"set one of them: {', '.join(own[:FEW])}" if own else fix
        return UserError(full, None, "has settings of its own, and no value", hint)
    if (found := NOT_CONVERTED.search(str(error))) is None:
        return UserError(full, None, text, fix)
    if "'float' could not be converted to Integer" in text:
        fix = "write integers in full: 5_000_000_000"
    kind = KINDS.get(found[2], found[2])
    return UserError(full, " ".join(found[1].split()), f"must be {kind}", fix)


def _unknown_option(group: str, name: Any) -> UserError:
    """Return the error for an option of a config group that has no file."""
    options = list(conf_files(group))
    near = difflib.get_close_matches(str(name), options, n=3, cutoff=0.6) if options[FEW:] else []
    fix = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(options)}"
    return UserError(group, name, f"there is no conf/{group}/{name}.yaml", fix)
