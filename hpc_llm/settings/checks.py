"""Validation rules shared by settings; errors have the key, the value, the rule and the fix.

Each number declares its range in its dataclass, by `count`, `positive`, `fraction` or `number`;
`check_fields` checks all fields of a dataclass. A number without a declared range is between 0 and
`TOP`.
"""

import math
import os
import re
import types
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path, PurePath
from typing import Any, get_args, get_origin

from hpc_llm.errors import UserError

__all__ = [
    "TOP",
    "Range",
    "check_fields",
    "check_folder_name",
    "check_letters",
    "count",
    "fraction",
    "number",
    "positive",
    "require_choice",
    "require_fraction",
    "require_name",
    "require_positive",
]

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
TOP = 10**15
TINY = 1e-30  # a positive number below it is an underflow or a typing error
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes: NAME_MAX and PATH_MAX of Linux
CACHE = ".cache"  # the shared cache in runs_dir


@dataclass(frozen=True)
class Range:
    """The values that a number may take."""

    low: float
    high: float
    above: bool = False
    """Whether `low` itself is excluded."""
    below: bool = False
    """Whether `high` itself is excluded."""

    def has(self, value: float) -> bool:
        """Return whether `value` is in the range; NaN never is."""
        over = value > self.low if self.above else value >= self.low
        under = value < self.high if self.below else value <= self.high
        return over and under

    def __str__(self) -> str:
        """The rule as text."""
        low = f"{'above' if self.above else 'at least'} {self.low:g}"
        return f"must be {low} and {'below' if self.below else 'at most'} {self.high:g}"


def number(
    low: float, high: float, *, above: bool = False, below: bool = False, default: Any = MISSING
) -> Any:
    """Declare a field whose value is between `low` and `high`; required without a `default`."""
    return field(default=default, metadata={"range": Range(low, high, above, below)})


def positive(high: float, default: Any = MISSING) -> Any:
    """Declare a field whose value is above 0 and at most `high`."""
    return number(0, high, above=True, default=default)


def count(high: float, low: float = 1, default: Any = MISSING) -> Any:
    """Declare a field whose value is an integer from `low` to `high`."""
    return number(low, high, default=default)


def fraction() -> Any:
    """Declare a field whose value is between 0 and 1."""
    return number(0, 1)


def check_fields(settings: Any, key: str, names: Sequence[str] | None = None) -> None:
    """Raise `UserError` for a number outside its range and for text that no setting can hold.

    `settings` is a dataclass; all of its fields are checked, or `names`. Dataclasses in it are
    checked too, and so are the values of lists and mappings.
    """
    for one in fields(settings):
        if names is None or one.name in names:
            name = "from" if one.name == "from_stage" else one.name
            place = f"{key}.{name}" if key else name
            span = one.metadata.get("range", Range(0, TOP))
            _check(place, getattr(settings, one.name), one.type, span)


def _check(key: str, value: Any, kind: Any, span: Range) -> None:
    """Check one value of the declared type `kind`."""
    plain = _plain(kind)
    if value is None or isinstance(value, bool):
        return
    if is_dataclass(value):
        check_fields(value, key)
    elif isinstance(value, dict):
        inner = get_args(plain)[-1] if get_origin(plain) is dict else Any
        for name, item in value.items():
            check_letters(key, str(name))
            _check(f"{key}.{name}", item, inner, span)
    elif isinstance(value, list | tuple):
        inner = get_args(plain)[0] if get_origin(plain) is list else Any
        for place, item in enumerate(value):
            _check(key if len(value) == 1 else f"{key}[{place}]", item, inner, span)
    elif isinstance(value, str) and plain in (int, float):
        raise UserError(key, repr(value), "must be a number", "remove the quotes")
    elif isinstance(value, str):
        _check_text(key, value, empty=plain is Any)
    elif isinstance(value, int | float):
        _check_number(key, value, None if plain is Any else span)


def _plain(kind: Any) -> Any:
    """Return a declared type without None: str for `str | None`."""
    if isinstance(kind, types.UnionType):
        return next(part for part in get_args(kind) if part is not type(None))
    return kind


def _check_number(key: str, value: float, span: Range | None) -> None:
    if 0 < abs(value) < TINY:
        raise UserError(key, value, f"must be 0, or at least {TINY:g} in size")
    if span is not None and not span.has(value):
        raise UserError(key, value, span)
    if span is None and not math.isfinite(value):
        raise UserError(key, value, "must be a finite number")


def check_letters(key: str, value: str) -> None:
    """Raise `UserError` for control characters, and for bytes that are no text in the locale."""
    if any(unicodedata.category(letter) == "Cc" for letter in value):
        raise UserError(key, repr(value), "must not have control characters")
    if any(unicodedata.category(letter) == "Cs" for letter in value):
        shown = value.encode("ascii", "backslashreplace").decode()
        rule, fix = "is not text in the encoding of the locale", "set LC_ALL=C.UTF-8"
        raise UserError(key, shown, rule, fix)


def _check_text(key: str, value: str, *, empty: bool) -> None:
    if not empty and not value.strip():
        raise UserError(key, "''", "must not be empty", f"set a value, or remove {key}=")
    check_letters(key, value)
    if len(value.encode()) > LONGEST_PATH:
        rule = f"has {len(value.encode())} bytes; at most {LONGEST_PATH} are allowed"
        raise UserError(key, f"{value[:40]}...", rule, "use a shorter one")


def check_folder_name(key: str, name: str, parent: str) -> None:
    """Raise `UserError` unless folder `name` is below folder `parent` and can be created there.

    `key` is the setting that names it.
    """
    parts = PurePath(name).parts
    if not parts or name[0] in "/~" or ".." in parts or parts[0] == CACHE:
        rule = f"names a folder below runs_dir, so it is relative, without .., and not {CACHE}"
        raise UserError(key, name or "''", rule, "use another run=NAME, or set runs_dir=DIR")
    _check_path(key, name)
    _check_path("runs_dir", parent)
    folder = Path(os.path.expanduser(parent)) / name
    _check_path(key, str(folder))


def _check_path(key: str, path: str) -> None:
    try:
        encoded = [os.fsencode(part) for part in PurePath(path).parts]
    except UnicodeEncodeError as error:
        shown = path.encode("ascii", "backslashreplace").decode()
        rule, fix = f"has letters that the locale ({error.encoding}) lacks", "set LC_ALL=C.UTF-8"
        raise UserError(key, shown, rule, fix) from error
    longest = max(map(len, encoded), default=0)
    if longest > LONGEST_NAME or len(b"/".join(encoded)) > LONGEST_PATH:
        rule = f"has a name of {longest} bytes; file systems take {LONGEST_NAME}"
        raise UserError(key, f"{path[:40]}...", rule, "use a shorter name")


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
    _check_path(key, name)
