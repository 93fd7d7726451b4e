"""Lines of text files, plain or compressed, with errors that name the file and the line."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from hpc_llm.errors import UserError

__all__ = ["read_lines"]

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for reading bytes, decompressed by its ending; corruption raises `UserError`."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as stream:
                yield cast(BinaryIO, stream)
        elif path.suffix == ".zst":
            from io import BufferedReader

            import pyarrow

            # Unlike the zstandard package, Arrow detects a truncated file.
            with pyarrow.input_stream(str(path), compression="zstd") as stream:
                yield cast(BinaryIO, BufferedReader(stream))
        else:
            with path.open("rb") as stream:
                yield stream
    except (EOFError, zlib.error, OSError) as error:
        if getattr(error, "errno", None) is not None:  # the disk, not the data
            raise
        rule = f"corrupt or truncated {path.suffix[1:]} file ({error})"
        raise UserError(str(path), None, rule, "copy it again") from error


def _decode(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        guess = "UTF-16" if number == 1 and line.startswith(UTF16_MARKS) else "WINDOWS-1251"
        fix = f"convert it: iconv -f {guess} -t UTF-8 OLD > NEW (your encoding after -f)"
        rule = f"line {number}, byte {error.start + 1} is not UTF-8"
        raise UserError(str(path), None, rule, fix) from error


def read_lines(path: Path) -> Iterator[str]:
    r"""Yield the lines of a UTF-8 file with their `\n`; `.gz` and `.zst` are decompressed.

    Raises `UserError` for corrupt compression and for bytes that are not UTF-8.
    """
    with _opened(path) as stream:
        for number, line in enumerate(stream, 1):
            yield _decode(line, path, number)
