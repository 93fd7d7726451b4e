"""`state.json`, the completion marker of a checkpoint: contents, read and write. No torch here.

It carries a checksum of its own: a flipped bit in a counter would otherwise resume to other
weights. Whatever is wrong with it is a `BadCheckpoint`, and the checkpoint before it is loaded.
"""

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from hpc_llm.errors import UserError
from hpc_llm.rundir import read_json, write_json
from hpc_llm.rundir.checksums import sealed, unsealed
from hpc_llm.training.progress import LogWindow, Progress

__all__ = ["MARKER", "BadCheckpoint", "CheckpointState", "read_state", "write_state"]

FORMAT = 3  # increment when the contents of a checkpoint change
WITHOUT_CHECKSUM = 2  # an earlier format that is still read
MARKER = "state.json"
LAYOUTS = ("whole", "sharded")


class BadCheckpoint(ValueError):
    """An incomplete or corrupt checkpoint; the message describes the problem."""


@dataclass(kw_only=True)
class CheckpointState:
    """Contents of `state.json`."""

    stage: str
    fingerprint: str
    """Of the stage: its settings and its inputs."""
    progress: Progress
    layout: str
    """whole | sharded."""
    data: dict[str, Any]
    """The reader: fingerprint and sequences of its text, and the next sequence."""
    parameters: dict[str, str]
    """Shapes of the trained parameters by name, as `4096 x 64`."""
    settings: dict[str, Any]
    """Settings on which the weights depend, as `stages.lora.rank`: these must not change."""
    made_with: dict[str, Any]
    """Ranks, ZeRO stage and similar values: these may change."""
    optimizer: dict[str, Any]
    """Optimizer state other than tensors: its step, and the loss scale of fp16."""
    division: str = ""
    """Sharded layout only: fingerprint of DeepSpeed's partitioning of the states."""
    names: dict[str, str] = field(default_factory=dict)
    """Sharded layout only: DeepSpeed's parameter names."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Bytes and SHA-256 of every file, by path relative to the folder."""
    format: int = FORMAT


def write_state(folder: Path, state: CheckpointState) -> None:
    """Write `state.json` with its checksum, atomically."""
    write_json(folder / MARKER, sealed(asdict(state)))


def read_state(folder: Path) -> CheckpointState:
    """Read `state.json`.

    Raises `BadCheckpoint` if it is missing or damaged, and `UserError` for another format.
    """
    try:
        found = read_json(folder / MARKER)
    except FileNotFoundError as error:
        raise BadCheckpoint(f"has no {MARKER}") from error
    except (OSError, UserError) as error:
        raise BadCheckpoint(f"cannot be read: {error}") from error
    try:
        plain = unsealed(found, required=found.get("format") == FORMAT)
        if plain is None:
            raise BadCheckpoint(f"{MARKER} is corrupt (its checksum differs)")
        if plain.get("format") not in (FORMAT, WITHOUT_CHECKSUM):
            raise _other_format(folder, plain.get("format", 1))
        progress = dict(plain["progress"])
        if progress.get("window") is not None:
            progress["window"] = _typed(LogWindow, progress["window"])
        state = _typed(CheckpointState, plain | {"progress": _typed(Progress, progress)})
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, BadCheckpoint | UserError):
            raise
        raise BadCheckpoint(f"{MARKER} cannot be read: {error}") from error
    if state.layout not in LAYOUTS:
        raise BadCheckpoint(f"{MARKER} has an unknown layout: {state.layout}")
    return state


def _other_format(folder: Path, found: object) -> UserError:
    return UserError(
        str(folder),
        None,
        f"has format {found}, and this version of hpc-llm reads {WITHOUT_CHECKSUM} and {FORMAT}",
        "resume with the version that wrote it, or train the stage from scratch with "
        "checkpoint.changed=restart",
    )


def _typed(kind: Any, values: dict[str, Any]) -> Any:
    """Return a dataclass from JSON values. Raises `TypeError` where a value has another type."""
    result = kind(**values)
    for one in fields(kind):
        value = getattr(result, one.name)
        kinds = get_args(one.type) if isinstance(one.type, UnionType) else (one.type,)
        if not any(_is(value, option) for option in kinds):
            raise TypeError(f"{one.name} is {value!r}")
    return result


def _is(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        number = isinstance(value, int if kind is int else (int, float))
        return number and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return isinstance(value, get_origin(kind) or kind)
