"""Read JSON and YAML files that others wrote, without being led to unbounded memory or recursion.

A YAML file of a few lines can expand to billions of values through aliases; deeply nested JSON ends
Python's parser with a `RecursionError`.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError

__all__ = ["bounded_json", "check_yaml"]

JSON_BYTES = 64 * 2**20  # the index of a model with a million tensors is about as large
YAML_BYTES = 4 * 2**20
YAML_VALUES = 200_000  # with every alias expanded; a configuration has about 500
YAML_DEPTH = 100


def bounded_json(path: Path, fix: str = "use the original file") -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises `UserError`, with `fix` as its remedy, for a file that is too large, not UTF-8, not valid
    JSON, nested too deeply, or not an object.
    """
    _refuse_large(path, JSON_BYTES, fix)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(str(path), None, "is not UTF-8 text", fix) from error
    except json.JSONDecodeError as error:
        rule = f"is not valid JSON (line {error.lineno}: {error.msg})"
        raise UserError(str(path), None, rule, fix) from error
    except RecursionError as error:
        raise UserError(str(path), None, "is nested too deeply", fix) from error
    except ValueError as error:  # an integer of more than 4,300 digits
        raise UserError(str(path), None, f"cannot be read ({error})", fix) from error
    if not isinstance(found, dict):
        raise UserError(str(path), None, "must be a JSON object, as in {...}", fix)
    return found


def check_yaml(path: Path, fix: str = "use the original file") -> None:
    """Raise `UserError` for a YAML file that expands to too many values or is nested too deeply.

    Accepts a file that does not exist or is not valid YAML: its reader reports that.
    """
    import yaml

    if not path.is_file():
        return
    _refuse_large(path, YAML_BYTES, fix)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = path.read_text(encoding="utf-8")
        if _depth(yaml.parse(text, Loader=loader)) > YAML_DEPTH:
            raise UserError(str(path), None, "is nested too deeply", fix)
        root = yaml.compose(text, Loader=loader)
        count = 0 if root is None else _expanded(root, {})
    except (yaml.YAMLError, UnicodeDecodeError):
        return
    if count > YAML_VALUES:
        rule = f"its aliases expand to more than {YAML_VALUES:,} values"
        raise UserError(str(path), None, rule, fix)


def _depth(events: Iterable[Any]) -> int:
    """Return the depth of a YAML document from its events; it ends above `YAML_DEPTH`."""
    level = most = 0
    for event in events:
        kind = type(event).__name__
        level += kind.endswith(("MappingStartEvent", "SequenceStartEvent"))
        level -= kind.endswith(("MappingEndEvent", "SequenceEndEvent"))
        most = max(most, level)
        if most > YAML_DEPTH:
            break
    return most


def _refuse_large(path: Path, most: int, fix: str) -> None:
    if (size := path.stat().st_size) > most:
        rule = f"has {size:,} bytes, more than {most:,}"
        raise UserError(str(path), None, rule, fix)


def _expanded(node: Any, known: dict[int, int]) -> int:
    """Return the number of values below a YAML node, with aliases expanded."""
    if id(node) not in known:
        known[id(node)] = YAML_VALUES + 1  # for an alias to a node that contains it
        value = node.value if isinstance(node.value, list) else []
        parts = [part for pair in value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(node)]
