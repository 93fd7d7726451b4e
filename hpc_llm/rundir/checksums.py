"""SHA-256 of files, while they are written and later, and of JSON objects that carry their own.

The hash detects damage: a flipped bit, a torn write, the file of another run. It is no signature:
who can change a file can change its hash, too.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["HashedFile", "describe", "sealed", "unsealed"]

BLOCK_BYTES = 2**24
SEAL = "checksum"


class HashedFile:
    """A new file for writing; after the `with` block, `found` has its bytes and SHA-256.

    System errors carry its path, whoever calls `write`. Hashing and writing do not block the other
    threads of the process.
    """

    def __init__(self, path: Path) -> None:
        """Open `path` for writing."""
        self.path = path
        self.found: dict[str, Any] = {}
        self._handle = path.open("wb")
        self._digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        """Write bytes or a buffer."""
        with memoryview(data) as view, view.cast("B") as flat:
            for begin in range(0, len(flat), BLOCK_BYTES):
                self._digest.update(flat[begin : begin + BLOCK_BYTES])
                self._handle.write(flat[begin : begin + BLOCK_BYTES])
            return len(flat)

    def flush(self) -> None:
        """Flush Python's buffer."""
        self._handle.flush()

    def __enter__(self) -> "HashedFile":
        """Enter the context."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Sync and close; after an error leave the file as it is."""
        try:
            if error is None:
                self._handle.flush()
                os.fsync(self._handle.fileno())
                self.found = {"bytes": self._handle.tell(), "sha256": self._digest.hexdigest()}
        except OSError as failure:
            error = failure
        with suppress(OSError):  # on a full disk, closing fails too
            self._handle.close()
        cause = _system_error(error)
        if cause is not None:
            raise OSError(cause.errno, cause.strerror, str(self.path)) from error


def _system_error(error: BaseException | None) -> OSError | None:
    """Return the system error behind an error: torch wraps a full disk in its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def describe(path: Path) -> dict[str, Any]:
    """Return size in bytes and SHA-256 of a file."""
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256")
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _seal(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with `checksum`, 64 bits of the SHA-256 of its other entries."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return {**plain, SEAL: _seal(plain)}


def unsealed(value: Mapping[str, Any], *, required: bool = False) -> dict[str, Any] | None:
    """Return the entries of an object read from disk; None if its checksum does not match them.

    Objects of earlier versions have no checksum: they are returned unless one is `required`.
    """
    plain = {key: entry for key, entry in value.items() if key != SEAL}
    if SEAL not in value:
        return None if required else plain
    return plain if value[SEAL] == _seal(plain) else None
