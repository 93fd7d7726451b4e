"""The shared cache `<runs_dir>/.cache/`: finished stages, shared by runs with equal settings.

An entry is a folder named by stage and fingerprint: `files/`, laid out as in a run folder, and
`record.json`, the stage's record. A run that needs such a stage gets the files as reflinks, else as
hard links, else as copies; files in a run folder are replaced and never changed in place, so an
entry keeps its content. A run holds the entry's lock while it computes a shared stage, so of runs
that start together one computes and the others wait for its result. Locks are released when their
process ends; an entry is renamed into place once it is complete.
"""

import errno
import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hpc_llm.distributed import say
from hpc_llm.errors import Stopped, UserError
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.rundir import (
    RunFolder,
    append_line,
    find_damage,
    open_regular,
    publish,
    read_json,
    read_jsonl,
    replaced_folder,
    temporary_beside,
)
from hpc_llm.rundir.checksums import sealed, unsealed

__all__ = ["CacheEntry", "SharedCache", "link_folder"]

FICLONE = 0x40049409  # linux/fs.h: share the blocks of a file on Btrfs, XFS and others
POLL_SECONDS = 1.0
EXCLUDED = "checkpoints"  # of a training stage: only its own run resumes from them


@dataclass(frozen=True)
class CacheEntry:
    """A finished stage in the cache."""

    path: Path

    @property
    def record(self) -> dict[str, Any] | None:
        """The stage's record from the run that made it; None if it is missing or corrupt."""
        try:
            found = read_json(self.path / "record.json")
        except (OSError, UserError):
            return None
        plain = unsealed(found) if isinstance(found, dict) else None
        return plain if plain and "fingerprint" in plain else None

    def has(self, outputs: Sequence[str]) -> bool:
        """Return whether it has all of these files, relative to a run folder."""
        return all((self.path / "files" / output).exists() for output in outputs)

    @property
    def size(self) -> int:
        """Size of its files in bytes."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    @property
    def last_used(self) -> float:
        """Time of last use by a run, in seconds since 1970."""
        users = self.path / "users.jsonl"
        return (users if users.exists() else self.path).stat().st_mtime

    def users(self) -> list[str]:
        """Return the run folders that currently use its result."""
        record = self.record
        if record is None:
            return []
        stage = {record["stage"]: record["fingerprint"]}
        named = {str(line["run"]): None for line in read_jsonl(self.path / "users.jsonl")}
        return [run for run in named if RunFolder(Path(run)).done(stage)]


@dataclass(frozen=True)
class SharedCache:
    """The cache of a `runs_dir`."""

    path: Path

    @classmethod
    def of(cls, runs_dir: str) -> "SharedCache":
        """Return the cache of `runs_dir`."""
        return cls(Path(os.path.expanduser(runs_dir)) / ".cache")

    def entry(self, stage: Stage) -> CacheEntry:
        """Return the entry of a stage, whether it exists or not."""
        return CacheEntry(self.path / f"{stage.name.replace('/', '-')}-{stage.fingerprint}")

    def entries(self) -> list[CacheEntry]:
        """Return all entries, least recently used first."""
        found = [CacheEntry(path) for path in self.path.glob("[!.]*") if path.is_dir()]
        return sorted(found, key=lambda entry: entry.last_used)

    @contextmanager
    def hold(self, stage: Stage, stop_reason: Callable[[], str | None]) -> Iterator[None]:
        """Hold the lock of a stage's entry; wait while another run holds it.

        Raises `Stopped` if a stop is requested while waiting.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = self.path / f".{self.entry(stage).path.name}.lock"
        waiting = False
        with open(open_regular(lock, os.O_RDWR | os.O_APPEND | os.O_CREAT), "a+") as handle:
            while not _locked(handle):
                if not waiting:
                    say(f"{stage.name}: waiting for another run that computes the same stage")
                    waiting = True
                if reason := stop_reason():
                    raise Stopped(reason)
                time.sleep(POLL_SECONDS)
            yield

    def take(
        self, stage: Stage, folder: RunFolder, inputs: Mapping[str, str] | None = None
    ) -> dict[str, Any] | None:
        """Link an entry's files into a run folder and return its record; None if there is none.

        An entry that lacks an output counts as missing: for example a checkpoint from which a stage
        of this run branches, but no stage of the run that made the entry. So does a damaged entry,
        which is reported, and one made from other files than `inputs` (see `inputs_of`).
        """
        entry = self.entry(stage)
        record = entry.record
        if record is None or not entry.has(stage.outputs):
            return None
        made_from = record.get("inputs", {})
        if any(made_from.get(name, now) != now for name, now in (inputs or {}).items()):
            return None
        if damage := find_damage(entry.path / "files", record.get("files", {})):
            say(f"{stage.name}: not linked from the shared cache {entry.path}: {damage[0]}")
            return None
        for name in stage.owns:
            source, target = entry.path / "files" / name, folder.path / name
            if source.is_dir():
                link_folder(source, target)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = temporary_beside(target)
                _link(source, temporary)
                publish(temporary, target)
        append_line(entry.path / "users.jsonl", {"run": str(folder.path.resolve())})
        return record

    def keep(self, stage: Stage, folder: RunFolder, record: dict[str, Any]) -> None:
        """Add the finished stage of a run folder; on a full disk, report it and continue."""
        entry = self.entry(stage)
        own = self.path / f".{entry.path.name}.{uuid.uuid4().hex[:8]}"
        try:
            own.mkdir(parents=True)
            for name in stage.owns:
                source, target = folder.path / name, own / "files" / name
                if source.is_dir():
                    _link_tree(source, target)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _link(source, target)
            run = {"run": str(folder.path.resolve())}
            (own / "users.jsonl").write_text(json.dumps(run) + "\n", encoding="utf-8")
            (own / "record.json").write_text(json.dumps(sealed(record)), encoding="utf-8")
            shutil.rmtree(entry.path, ignore_errors=True)  # damaged, or of an earlier version
            own.rename(entry.path)
        except OSError as error:
            say(f"{stage.name}: not added to the shared cache {self.path}: {error.strerror}")
        finally:
            shutil.rmtree(own, ignore_errors=True)

    def clean(self, keep_bytes: int) -> list[CacheEntry]:
        """Remove unused entries, least recently used first, down to `keep_bytes` in total.

        Returns the entries removed. Temporary folders of killed writers are removed too.
        """
        for left in self.path.glob(".*.????????"):
            shutil.rmtree(left, ignore_errors=True)
        entries = self.entries()
        total, removed = sum(entry.size for entry in entries), []
        for entry in entries:
            if total <= keep_bytes:
                break
            if entry.users():
                continue
            total -= entry.size
            shutil.rmtree(entry.path, ignore_errors=True)
            self.path.joinpath(f".{entry.path.name}.lock").unlink(missing_ok=True)
            removed.append(entry)
        return removed


def _locked(handle: IO[str]) -> bool:
    """Try to lock an open file; return False if another process holds the lock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def link_folder(source: Path, target: Path) -> None:
    """Replace the folder `target` by links to the files below `source`."""
    with replaced_folder(target) as temporary:
        _link_tree(source, temporary)


def _link_tree(source: Path, target: Path) -> None:
    """Link the files below a folder, excluding checkpoints and temporary files."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.name == EXCLUDED or path.name.startswith("."):
            continue
        if path.is_dir():
            _link_tree(path, target / path.name)
        else:
            _link(path, target / path.name)


def _link(source: Path, target: Path) -> None:
    """Link a file: a reflink, else a hard link, else a copy."""
    with suppress(OSError):
        with source.open("rb") as old, target.open("wb") as new:
            fcntl.ioctl(new, FICLONE, old.fileno())
        shutil.copymode(source, target)
        return
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copy2(source, target)
