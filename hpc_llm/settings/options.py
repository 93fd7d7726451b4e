"""Options of `conf/` that are no part of a run's configuration: tasks and tables, read by name."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.rundir.confdir import conf_files

__all__ = ["near", "read_option"]


def read_option(group: str, name: str, key: str) -> tuple[Path, dict[Any, Any]]:
    """Return the path and the content of `conf/GROUP/NAME.yaml`, of the project or a plug-in.

    Raises `UserError` about the setting `key` for an unknown name, and about the file if it is no
    YAML mapping.
    """
    import yaml

    options = conf_files(group)
    if name not in options:
        rule = f"there is no conf/{group}/{name}.yaml"
        raise UserError(key, name or "''", rule, near(name, [*options]))
    path = options[name]
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise UserError(str(path), None, f"not valid YAML: {text}", "correct the file") from error
    if not isinstance(content, dict):
        rule = "must be a mapping of settings"
        raise UserError(str(path), None, rule, f"see Extending, A {group}")
    return path, content


def near(word: str, known: Sequence[str]) -> str:
    """Return `did you mean X or Y?` for the nearest known names, else all of them."""
    found = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(found)}?" if found else f"choose one of {', '.join(known)}"
