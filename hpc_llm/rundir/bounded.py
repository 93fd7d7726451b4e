"""Read JSON and YAML files that others wrote, without being led to unbounded memory or recursion.

A YAML file of a few lines can expand to billions of values through aliases; deeply nested JSON ends
Python's parser with a `RecursionError`.
"""

import json
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
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        count, depth = (0, 0) if root is None else _expanded(root, {}, 0)
    except (yaml.YAMLError, UnicodeDecodeError):
        return
    except RecursionError:
        count, depth = 0, YAML_DEPTH + 1
    if depth > YAML_DEPTH:
        raise UserError(str(path), None, "is nested too deeply", fix)
    if count > YAML_VALUES:
        rule = f"its aliases expand to {count:,} values, more than {YAML_VALUES:,}"
        raise UserError(str(path), None, rule, fix)


def _refuse_large(path: Path, most: int, fix: str) -> None:
    if (size := path.stat().st_size) > most:
        rule = f"has {size:,} bytes, more than {most:,}"
        raise UserError(str(path), None, rule, fix)


def _expanded(node: Any, known: dict[int, tuple[int, int]], level: int) -> tuple[int, int]:
    """Return the number of values below a YAML node, aliases expanded, and the depth."""
    if level > YAML_DEPTH:  # an alias to a node that contains it never ends
        return 0, level
    if id(node) not in known:
        value = node.value if isinstance(node.value, list) else []
        parts = [part for pair in value for part in (pair if isinstance(pair, tuple) else (pair,))]
        found = [_expanded(part, known, level + 1) for part in parts]
        known[id(node)] = (
            1 + sum(count for count, _ in found),
            max((d for _, d in found), default=level),
        )
    return known[id(node)]
