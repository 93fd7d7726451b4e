"""The files of a finished stage with their sizes and hashes, and what has become of them since.

Its record lists every file that a stage wrote. Checkpoints are excluded: they verify themselves
(`hpc_llm.training.checkpoints.checkpoint`), and only their own stage reads them.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_llm.rundir.atomic import system_errors
from hpc_llm.rundir.checksums import describe
from hpc_llm.rundir.fingerprint import fingerprint

__all__ = ["RESULT", "Damage", "Files", "content_of", "find_damage", "take_inventory"]

Files = Mapping[str, Mapping[str, Any]]
"""`{"train/lora/weights.safetensors": {"bytes": 4096, "sha256": "..."}}`."""

EXCLUDED = "checkpoints"
RESULT = "done.json"  # of a training stage: a copy of the result in its record, with its times
THREADS = 8  # hashing and reading do not block each other


@dataclass(frozen=True)
class Damage:
    """A file that is not as its stage wrote it."""

    file: str
    """Relative to the run folder."""
    problem: str

    def __str__(self) -> str:
        """The damage as part of a sentence."""
        return f"{self.file} {self.problem}"


def take_inventory(root: Path, owned: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of the files at `owned`, files and folders relative to `root`."""
    paths = sorted(path for name in owned for path in _files(root / name))
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as threads:
        found = list(threads.map(_described, paths))
    return {str(p.relative_to(root)): one for p, one in zip(paths, found, strict=True)}


def _described(path: Path) -> dict[str, Any]:
    with system_errors(path):
        return describe(path)


def _files(path: Path) -> Iterator[Path]:
    """Yield the files below `path`, or `path` itself; temporary files and checkpoints excluded."""
    if path.is_file():
        yield path
        return
    for inner in path.iterdir() if path.is_dir() else ():
        if inner.name != EXCLUDED and not inner.name.startswith("."):
            yield from _files(inner)


def find_damage(root: Path, files: Files) -> list[Damage]:
    """Return the files that are missing, or differ from `files` in size or SHA-256."""
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as threads:
        found = threads.map(lambda item: _problem(root / item[0], item[1]), files.items())
    return [Damage(name, what) for name, what in zip(files, found, strict=True) if what]


def _problem(path: Path, known: Mapping[str, Any]) -> str:
    """Return what is wrong with a file; "" if nothing is. It is read only if its size is right."""
    if not path.is_file():
        return "is not a file" if path.exists() else "is missing"
    try:
        size = path.stat().st_size
        if size != known["bytes"]:
            return f"has {size:,} bytes, {known['bytes']:,} were written"
        return "" if describe(path) == known else "is corrupt (SHA-256 differs)"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def content_of(files: Files) -> str:
    """Return the fingerprint of a stage's files, without the times that `done.json` records."""
    return fingerprint({name: one for name, one in files.items() if Path(name).name != RESULT})
