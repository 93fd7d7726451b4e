"""Fingerprints of settings and files, equal for equal content on any machine."""

import hashlib
import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

__all__ = ["fingerprint", "fingerprint_path", "flat"]

WHOLE_BYTES = 256 * 2**20  # files up to this size are read completely
BLOCKS, BLOCK_BYTES = 16, 2**20  # of larger files: evenly spaced blocks, size and time


def fingerprint(*values: Any) -> str:
    """Return a hash of JSON-like values and dataclasses as 16 hexadecimal digits."""
    plain = [asdict(v) if is_dataclass(v) and not isinstance(v, type) else v for v in values]
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted keys: {"train": {"steps": 3}} -> {"train.steps": 3}."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def _fingerprint_file(path: Path, times: bool) -> str:
    status = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        if status.st_size <= WHOLE_BYTES:
            while block := handle.read(BLOCK_BYTES):
                digest.update(block)
        else:
            digest.update(f"{status.st_size} {times * status.st_mtime_ns}".encode())
            for i in range(BLOCKS):
                handle.seek(i * (status.st_size - BLOCK_BYTES) // (BLOCKS - 1))
                digest.update(handle.read(BLOCK_BYTES))
    return digest.hexdigest()


def fingerprint_path(path: Path, *, times: bool = True) -> str:
    """Return the fingerprint of a file's content, or of the names and contents in a folder.

    Files above 256 MiB are sampled: size, modification time (not with `times=False`, for which
    copies are equal) and 16 blocks of 1 MiB.
    """
    if path.is_file():
        return fingerprint(_fingerprint_file(path, times))
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return fingerprint([[str(p.relative_to(path)), _fingerprint_file(p, times)] for p in files])
