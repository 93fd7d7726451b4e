"""Write files with hashing on the fly and fsync at the end; compute the same checksums later."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["HashedFile", "describe"]

BLOCK_BYTES = 2**24


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
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(BLOCK_BYTES):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
