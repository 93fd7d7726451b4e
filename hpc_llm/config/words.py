"""Overrides as typed by the user, in Hydra's syntax.

Hydra reads a value before it knows the type of the setting: `run=1e3` becomes 1000.0, and letters
other than ASCII, parentheses and brackets are syntax errors. Here the declared type decides: where
it is text (or a list or mapping of text), the value is that text as typed; quotes, lists and null
keep their meaning in Hydra. A value that is no text is left to Hydra.
"""

import re
import types
from collections.abc import Iterable
from functools import cache
from typing import Any, Union, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException

from hpc_llm.config.suggest import known_keys, nearest
from hpc_llm.ensembles import ensemble_names, settings_of
from hpc_llm.errors import UserError
from hpc_llm.methods import describe, method_names
from hpc_llm.rundir import conf_files
from hpc_llm.settings import RunConfig, ScheduleSettings
from hpc_llm.settings.checks import check_letters

__all__ = ["declared_type", "holds_list", "in_hydra_syntax", "override_key", "parse_override"]

WORD = re.compile(r"(\+\+|\+|~)?([^=]*)(?:=(.*))?", re.DOTALL)
QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
ENVIRONMENT = re.compile(r"\$\{oc\.env:[^${}]*\}")  # the only interpolation in text
KEY = re.compile(r"[\w@./:-]+", re.ASCII)
MISSING = "???"
KINDS = {int: "an integer", float: "a number", bool: "true or false"}


def in_hydra_syntax(word: str, *, sweep: bool = False) -> str:
    """Return an override in Hydra's syntax, with text as typed in quotes.

    With `sweep` (-m), commas separate the values of a sweep. Raises `UserError` for a word that is
    no override, and for a value that neither is text nor can be read by Hydra.
    """
    found = WORD.fullmatch(word)
    assert found is not None
    prefix, key, value = found[1] or "", found[2], found[3]
    if not key or (value is None and prefix != "~"):
        raise UserError(word, None, "is not an override", "write KEY=VALUE")
    if not KEY.fullmatch(key):
        raise _no_such(key)
    if value is None:
        return word
    check_letters(key, value)
    if value.strip() == MISSING:
        rule, fix = "marks a missing value in YAML", f"set a value, or remove {key}="
        raise UserError(key, value, rule, fix)
    kind = declared_type(key)
    override = _parsed(word)
    elements = [value]
    if sweep and (override is None or _lists_choices(override)):
        elements = _split(value)
    if prefix == "~" or (override is not None and not _is_text(kind)):
        return word
    if kind is Any and override is None:
        kind = str
    if not _is_text(kind):
        raise _unreadable(key, value, kind)
    if override is not None and override.is_sweep_override() and sweep and len(elements) == 1:
        return word  # a function of Hydra: choice(a,b), range(1,4)
    return f"{prefix}{key}={','.join(_typed(key, part, kind) for part in elements)}"


def override_key(word: str) -> str:
    """Return the key of an override: zero.stage of `+zero.stage=1`."""
    found = WORD.fullmatch(word)
    assert found is not None
    return str(found[2])


def parse_override(line: str) -> Override:
    """Return a parsed override. Raises `UserError` for one that Hydra cannot read."""
    try:
        return OverridesParser.create().parse_override(line)
    except (HydraException, ValueError, RecursionError) as error:
        text = " ".join(str(error).splitlines()[:1])
        fix = "write KEY=VALUE and quote special characters: 'key=\"a value\"'"
        raise UserError(line, None, text or "cannot be read", fix) from error


def _parsed(line: str) -> Override | None:
    try:
        return parse_override(line)
    except UserError:
        return None


def declared_type(key: str) -> Any:
    """Return the declared type of a dotted key: `Any` below an open mapping, None: no such key.

    The fields of a stage are those of all methods, those of `compose` of all compositions.
    """
    parts = key.split(".")
    if parts[0] == "compose" and len(parts) > 1:
        return _below(_compose_types(tuple(ensemble_names())).get(parts[1]), parts[2:])
    if parts[0] == "stages" and len(parts) > 2:
        field = "from_stage" if parts[2] == "from" else parts[2]
        return _below(_stage_types(tuple(method_names())).get(field), parts[3:])
    return _below(RunConfig, parts)


def holds_list(key: str) -> bool:
    """Return whether a dotted key is declared as a list."""
    return get_origin(_plain(declared_type(key))) is list


def _below(kind: Any, parts: list[str]) -> Any:
    """Return the type of the value at `parts` inside a value of type `kind`."""
    for part in parts:
        plain = _plain(kind)
        if plain is Any:
            return Any
        if get_origin(plain) is dict:
            kind = get_args(plain)[1]
        else:
            kind = getattr(plain, "__annotations__", {}).get(part)
    return kind


@cache
def _stage_types(methods: tuple[str, ...]) -> dict[str, Any]:
    """Return the declared types of the settings of stages, by the names of their fields."""
    return _union(describe(name).settings for name in methods) | {"schedule": ScheduleSettings}


@cache
def _compose_types(names: tuple[str, ...]) -> dict[str, Any]:
    """Return the declared types of the settings of compositions, by the names of their fields."""
    return _union(settings_of(name) for name in names)


def _union(settings: Iterable[Any]) -> dict[str, Any]:
    """Return the types of the fields of dataclasses; None where they differ."""
    found: dict[str, Any] = {}
    for one in settings:
        for field in getattr(one, "__dataclass_fields__", {}).values():
            same = found.setdefault(field.name, field.type) == field.type
            found[field.name] = field.type if same else None
    return found


def _plain(kind: Any) -> Any:
    """Return a type without None: str for `str | None`."""
    if isinstance(kind, types.UnionType) or get_origin(kind) is Union:
        (kind,) = [part for part in get_args(kind) if part is not type(None)]
    return kind


def _is_text(kind: Any) -> bool:
    """Return whether a type is text, or a list or mapping of text."""
    plain = _plain(kind)
    return plain is str or (get_origin(plain) in (list, dict) and _is_text(get_args(plain)[-1]))


def _typed(key: str, value: str, kind: Any) -> str:
    """Return a value of a text type in Hydra's syntax."""
    plain, value = _plain(kind), value.strip()
    inner = value[1:-1]
    if get_origin(plain) is dict and value[:1] + value[-1:] == "{}":
        pairs = (part.partition(":") for part in _split(inner) if part.strip())
        item = get_args(plain)[1]
        return "{" + ",".join(f"{k.strip()}: {_typed(key, v, item)}" for k, _, v in pairs) + "}"
    if get_origin(plain) is list:
        item = get_args(plain)[0]
        if value[:1] + value[-1:] != "[]" or not _closes(value):
            return value if value.lower() == "null" else f"[{_typed(key, value, item)}]"
        parts = _split(inner) if inner.strip() else []
        return "[" + ",".join(_element(key, part, item) for part in parts) + "]"
    if value.lower() == "null" or get_origin(plain) is dict:
        return value
    return _text(key, value)


def _element(key: str, value: str, kind: Any) -> str:
    value = value.strip()
    if not value or (value[0] in "[{" and value[-1] in "]}" and _closes(value)):
        rule = "must be a list of texts, without empty ones and lists in it"
        raise UserError(key, value or "''", rule, f"write {key}=[A,B]")
    return _text(key, value) if value.lower() == "null" else _typed(key, value, kind)


def _text(key: str, value: str) -> str:
    """Return text in Hydra's syntax: in quotes unless Hydra reads it as this text anyway."""
    if "${" in ENVIRONMENT.sub("", value):
        raise UserError(key, value, "a text cannot hold an interpolation", "write the value itself")
    if QUOTED.fullmatch(value) or ENVIRONMENT.search(value):
        return value
    override = _parsed(f"key={value}")
    plain = override is not None and not override.is_sweep_override()
    if override is not None and plain and isinstance(override.value(), str):
        return value
    return QuotedString(text=value, quote=Quote.single).with_quotes()


def _lists_choices(override: Override) -> bool:
    """Return whether an override is a sweep of the form KEY=A,B."""
    if not override.is_sweep_override():
        return False
    value = override.value()
    return isinstance(value, ChoiceSweep) and value.simple_form


def _split(text: str) -> list[str]:
    """Split at the commas that are neither in quotes nor in brackets."""
    parts, depth, quote, before = [""], 0, "", ""
    for letter in text:
        if quote:
            quote = "" if letter == quote and before != "\\" else quote
        elif letter in "'\"" and not parts[-1].strip(" [{("):
            quote = letter
        elif before != "\\":
            depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and not quote and depth <= 0 and before != "\\":
            parts.append("")
        else:
            parts[-1] += letter
        before = letter
    return parts


def _closes(text: str) -> bool:
    """Return whether the bracket at the start of `text` is closed at its end only."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "[{(") - (letter in "]})")
        if depth == 0:
            return place == len(text) - 1
    return False


def _no_such(key: str) -> UserError:
    hint = nearest(key, known_keys())
    return UserError(key, None, "no such setting", hint or "see hpc-llm adapt --cfg job")


def _unreadable(key: str, value: str, kind: Any) -> UserError:
    """Return the error for a value that is no text and that Hydra cannot read."""
    group = key.partition("@")[0]
    if options := list(conf_files(group)):
        fix = f"choose one of {', '.join(options)}"
        return UserError(group, value, f"there is no conf/{group}/{value}.yaml", fix)
    if kind is None:
        return _no_such(key)
    rule = KINDS.get(_plain(kind), "a value in Hydra's syntax")
    return UserError(key, value, f"must be {rule}", "hpc-llm adapt --cfg job shows all settings")
