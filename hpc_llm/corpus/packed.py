"""Bytes of files, plain or compressed (`.gz`, `.zst`), and what a file is by its first bytes.

A damaged archive often decompresses to other bytes before its checksum, which is at its end, is
read. They then look like an unknown encoding or invalid JSON; so after any such error the rest of
the archive is read, too.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from hpc_llm.errors import UserError

__all__ = ["PACKED", "blames_archive", "kind_of", "most_bytes", "opened"]

PACKED = {".gz": "gzip", ".zst": "zstd"}
"""Formats of compression by ending."""
EXPANSION, SMALL_EXPANSION = 250, 2**26
"""Decompressed size: at most so many times that of the file, or so many bytes."""
SIGNATURES: dict[str, tuple[bytes, str]] = {
    "gzip": (b"\x1f\x8b", "decompress it, or let its name end with .gz"),
    "zstd": (b"\x28\xb5\x2f\xfd", "decompress it, or let its name end with .zst"),
    "bzip2": (b"BZh", "decompress it: bunzip2"),
    "xz": (b"\xfd7zXZ\0", "decompress it: unxz"),
    "zip": (b"PK\x03\x04", "unpack it"),
    "Parquet": (b"PAR1", "let its name end with .parquet"),
    "Arrow": (b"ARROW1\0\0", "let its name end with .arrow"),
    "PDF": (b"%PDF-", "extract its text"),
}
"""First bytes of files that are no text, and the fix, by format."""
HAS_CHECKSUM = 4  # of the descriptor, the fifth byte of a zstd frame (RFC 8878, 3.1.1.1.1)
BLOCK = 2**20


def kind_of(head: bytes) -> tuple[str, str] | None:
    """Return the format of a file that begins with `head`, and the fix; None: unknown."""
    for kind, (signature, fix) in SIGNATURES.items():
        if head.startswith(signature):
            return kind, fix
    return ("tar", "unpack it") if head[257:262] == b"ustar" else None


def most_bytes(path: Path) -> int | None:
    """Return the maximum decompressed size of a compressed file; None for another one."""
    packed = path.suffix.lower() in PACKED
    return max(SMALL_EXPANSION, EXPANSION * path.stat().st_size) if packed else None


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for reading bytes, decompressed by its ending.

    Raises `UserError` for a file that is not compressed as its ending says, or that is damaged.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in PACKED:
            _check_signature(path, suffix)
        if suffix == ".gz":
            with gzip.open(path, "rb") as stream:
                yield cast(BinaryIO, stream)
        elif suffix == ".zst":
            from io import BufferedReader

            import pyarrow

            # Unlike the zstandard package, Arrow detects a truncated file.
            with pyarrow.input_stream(str(path), compression="zstd") as stream:
                yield cast(BinaryIO, BufferedReader(stream))
        else:
            with path.open("rb") as stream:
                yield stream
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the data
            raise OSError(error.errno, error.strerror, str(path)) from error
        text = " ".join(str(error).split())
        rule = f"the archive is damaged: corrupt or truncated {suffix[1:]} file ({text})"
        raise UserError(str(path), None, rule, "copy or download it again") from error


def _check_signature(path: Path, suffix: str) -> None:
    with path.open("rb") as file:
        head = file.read(512)
    kind, (found, fix) = PACKED[suffix], kind_of(head) or (None, "")
    skipped = suffix == ".zst" and head[:1] <= b"\x5f" and head[1:4] == b"\x2a\x4d\x18"
    if found == kind or skipped:  # a zstd file may begin with a frame to skip
        return
    rule = f"is not {kind}, though its name ends with {suffix}"
    if not head:
        rule, fix = f"is empty, which no {kind} file is", "copy or download it again"
    elif found is not None:
        rule = f"{rule}, but {found}"
    else:
        fix = f"remove {suffix} from its name if it is not compressed, else copy it again"
    raise UserError(str(path), None, rule, fix)


@contextmanager
def blames_archive(path: Path) -> Iterator[None]:
    """Blame a damaged archive, rather than its text, for a `UserError` while `path` is read."""
    try:
        yield
    except UserError as error:
        if path.suffix.lower() not in PACKED:
            raise
        if (damage := _damage_of(path)) is not None:
            raise damage from error
        if path.suffix.lower() == ".zst" and not _has_checksum(path):
            fix = f"{error.fix}; if its text was right, the archive is damaged: copy it again"
            raise UserError(error.key, error.value, error.rule, fix) from error
        raise


def _damage_of(path: Path) -> UserError | None:
    """Read a compressed file to its end, up to its limit; return the error of a damaged one."""
    left = most_bytes(path) or 0
    try:
        with opened(path) as stream:
            while left > 0 and (block := stream.read(BLOCK)):
                left -= len(block)
    except UserError as error:
        return error
    return None


def _has_checksum(path: Path) -> bool:
    """Whether the first frame of a zstd file ends with a checksum of its content."""
    with path.open("rb") as file:
        return bool(file.read(5)[-1] & HAS_CHECKSUM)
