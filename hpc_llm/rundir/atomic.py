"""Atomic writes, and JSON lines that survive a torn last line.

All writes check the fence: see `hpc_llm.rundir.fence`. None follows a symbolic link: see
`hpc_llm.rundir.files`.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.rundir.checksums import sealed, unsealed
from hpc_llm.rundir.fence import check_fence
from hpc_llm.rundir.files import open_regular, refuse_link, temporary_beside

__all__ = [
    "append_line",
    "damaged_lines",
    "publish",
    "read_json",
    "read_jsonl",
    "replaced_folder",
    "sync_folder",
    "system_errors",
    "write_json",
    "write_text",
]


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a rename in it survives a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with system_errors(folder):
            os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`: temporary name, fsync, rename."""
    check_fence(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        new = open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with system_errors(path), open(new, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        check_fence(path)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. Raises `UserError` for NaN and infinity."""
    try:
        text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    except ValueError as error:
        rule = "would hold NaN or infinity: the model diverged, or its weights are broken"
        raise UserError(str(path), None, rule, "see the losses in events.jsonl") from error
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON file; raises `UserError` for one that is damaged."""
    try:
        with system_errors(path):
            return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, or no UTF-8
        rule = f"is damaged: it is not valid JSON ({error})"
        raise UserError(str(path), None, rule, "restore the file, or remove it") from error


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Append one JSON line in a single O_APPEND write, and fsync it.

    The line carries its checksum. A torn last line of a killed writer is terminated first, so that
    no other line is lost. Raises `UserError` if `path` is a symbolic link or no regular file.
    """
    line = json.dumps(sealed(value), ensure_ascii=False).encode() + b"\n"
    check_fence(path)
    handle = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            line = b"\n" + line
        with system_errors(path):
            os.write(handle, line)
            os.fsync(handle)
    finally:
        os.close(handle)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a JSON Lines file; torn and damaged lines are skipped."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as handle:
        for line in handle:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict) and (plain := unsealed(value)) is not None:
                yield plain


def damaged_lines(path: Path) -> int:
    """Count the lines of a JSON Lines file that `read_jsonl` skips."""
    if not path.is_file():
        return 0
    with path.open("rb") as handle:
        written = sum(bool(line.strip()) for line in handle)
    return max(0, written - sum(1 for _ in read_jsonl(path)))  # one may be added in between


def publish(temporary: Path, path: Path) -> None:
    """Rename a finished file into place: synced, with permissions by the umask.

    Libraries that write weights make them readable by the owner only.
    """
    _open_to_readers(temporary)
    with system_errors(path), temporary.open("rb") as handle:
        os.fsync(handle.fileno())
    check_fence(path)
    temporary.replace(path)
    sync_folder(path.parent)


def _open_to_readers(path: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Raise `OSError` for `path` when a system error has no path, or is a Rust library's own.

    For example those of `fsync` and of a handle's `write`; safetensors and tokenizers raise
    `No space left on device (os error 28)`.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except Exception as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Open an empty temporary folder that becomes `path` when the block ends without error.

    A previous `path` is removed only then; after an error no partial result is left. System errors
    are raised as `OSError`, whichever library reports them. Raises `UserError` if `path` is a
    symbolic link.
    """
    check_fence(path)
    refuse_link(path)
    temporary = temporary_beside(path)
    temporary.mkdir(parents=True)
    try:
        with system_errors(path):
            yield temporary
        for file in temporary.rglob("*.safetensors"):
            _open_to_readers(file)
        check_fence(path)
        shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
