"""Detect keys that DeepSpeed does not know: it reads the keys it knows and ignores the rest.

DeepSpeed's own parser gets a mapping that records the keys it looks up. A key that is never looked
up does not exist in this version of DeepSpeed; most sections are also validated by pydantic.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hpc_llm.errors import UserError

__all__ = ["check_keys"]

Path = tuple[str, ...]


class _Recording(dict[str, Any]):
    """A mapping that records the keys looked up in it, by its path in the configuration."""

    def __init__(self, values: Mapping[str, Any], read: dict[Path, set[str]], path: Path) -> None:
        super().__init__(
            (key, _Recording(value, read, (*path, key)) if isinstance(value, dict) else value)
            for key, value in values.items()
        )
        self.read = read.setdefault(path, set())

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.read.add(str(key))
        return super().__contains__(key)

    def __iter__(self) -> Iterator[str]:  # passed on whole (`**values`): then pydantic checks it
        self.read.update(super().keys())
        return super().__iter__()


def check_keys(config: Mapping[str, Any]) -> None:
    """Raise `UserError` for a key that DeepSpeed does not know, or a value that it rejects.

    Keys are reported as in `zero.extra`; the rest of `config` is derived. Needs the process group.
    """
    from deepspeed.runtime.config import DeepSpeedConfig
    from pydantic import ValidationError

    read: dict[Path, set[str]] = {}
    try:
        DeepSpeedConfig(_Recording(config, read, ()))
    except ValidationError as error:
        raise _refused(config, error) from error
    except Exception as error:  # whatever DeepSpeed raises for a value: assert, ValueError, its own
        raise UserError(
            "zero.extra",
            None,
            f"DeepSpeed rejects it: {_line(error)}",
        ) from error
    for path, names in read.items():
        section: Mapping[str, Any] = config
        for part in path:
            section = section[part]
        unread = sorted(set(section) - names)
        if unread and not names <= {"enabled"}:  # a disabled section may not be read any further
            raise _unknown((*path, unread[0]), names)


def _unknown(path: Path, known: Iterable[str]) -> UserError:
    near = difflib.get_close_matches(path[-1], list(known), n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else "see deepspeed.ai/docs/config-json"
    return UserError(
        f"zero.extra.{'.'.join(path)}",
        None,
        "DeepSpeed has no such setting",
        hint,
    )


def _refused(config: Mapping[str, Any], error: Any) -> UserError:
    """Return pydantic's error for a section, with the path of the key."""
    first = error.errors()[0]
    place = tuple(str(part) for part in first["loc"])
    path = next(_paths(config, place, ()), place)
    if first["type"] == "extra_forbidden":
        return _unknown(path, _fields(error.title, place))
    return UserError(
        f"zero.extra.{'.'.join(path)}",
        first.get("input"),
        first["msg"],
    )


def _paths(section: Mapping[str, Any], place: Path, before: Path) -> Iterator[Path]:
    """Yield the paths in `section` that end in `place`."""
    inner: Any = section
    for part in place:
        inner = inner.get(part, section) if isinstance(inner, Mapping) else section
    if inner is not section:
        yield (*before, *place)
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _paths(value, place, (*before, name))


def _fields(model: str, place: Path) -> list[str]:
    """Return the field names at `place` in the pydantic model called `model`."""
    from deepspeed.runtime.config_utils import DeepSpeedConfigModel

    kinds = {kind.__name__: kind for kind in DeepSpeedConfigModel.__subclasses__()}
    fields = getattr(kinds.get(model), "model_fields", {})
    for part in place[:-1]:
        found = [kind for kind in kinds.values() if kind.__name__ in str(fields[part].annotation)]
        fields = found[0].model_fields if found else {}
    return [name for key, field in fields.items() for name in (key, field.alias) if name]


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
