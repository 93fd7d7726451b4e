"""Validation rules shared by settings; errors have the key, the value, the rule and the fix."""

import re
from collections.abc import Collection, Sequence

from hpc_llm.errors import UserError

__all__ = ["require_choice", "require_fraction", "require_name", "require_positive"]

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def require_choice(key: str, value: str, choices: Collection[str]) -> None:
    """Raise `UserError` unless `value` is one of `choices`."""
    if value not in choices:
        raise UserError(key, value, "unknown", f"choose one of {', '.join(sorted(choices))}")


def require_positive(key: str, value: float) -> None:
    """Raise `UserError` unless `value` is above zero."""
    if not value > 0:
        raise UserError(key, value, "must be above 0")


def require_fraction(key: str, value: float) -> None:
    """Raise `UserError` unless `value` is in [0, 1]."""
    if not 0 <= value <= 1:
        raise UserError(key, value, "must be a fraction between 0 and 1")


def require_name(key: str, name: str, reserved: Sequence[str]) -> None:
    """Raise `UserError` for `key` unless `name` can name a folder and is not `reserved`."""
    if not NAME.fullmatch(name) or name in reserved:
        rule = "must begin with a letter and have letters, digits, - and _ only, and is not one of "
        rule += ", ".join(reserved)
        raise UserError(key, None, rule, "use another name")
