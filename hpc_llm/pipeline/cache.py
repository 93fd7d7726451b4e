"""The shared cache `<runs_dir>/.cache/`: finished stages that runs with equal settings share.

An entry is a folder named by stage and fingerprint: `files/` as they lie in a run folder, and
`record.json`, its record there. A run that needs such a stage gets the files as reflinks, else as
hard links, else as copies; files of a run folder are replaced and never changed in place, so an
entry keeps its content. While a run works on a shared stage it holds the entry's lock, so of runs
that start at once one works and the others wait for its result. Locks end with their process; an
entry gets its name when it is whole.
"""

import errno
import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hpc_llm.distributed import say
from hpc_llm.errors import Stopped
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.rundir import RunFolder, append_line, publish, read_json, read_jsonl, replaced_folder

__all__ = ["CacheEntry", "SharedCache"]

FICLONE = 0x40049409  # linux/fs.h: share the blocks of a file on Btrfs, XFS and others
POLL_SECONDS = 1.0
LEFT_OUT = "checkpoints"  # of a training stage: its own run resumes from them, no other


@dataclass(frozen=True)
class CacheEntry:
    """A finished stage in the cache."""

    path: Path

    @property
    def record(self) -> dict[str, Any] | None:
        """The record of the stage in the run that made it; None for something else, or damage."""
        try:
            found = read_json(self.path / "record.json")
        except (OSError, json.JSONDecodeError):
            return None
        return found if isinstance(found, dict) and "fingerprint" in found else None

    def has(self, outputs: Sequence[str]) -> bool:
        """Whether all of these files, relative to a run folder, are among its files."""
        return all((self.path / "files" / output).exists() for output in outputs)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    @property
    def last_used(self) -> float:
        """When a run made or took it last, in seconds since 1970."""
        users = self.path / "users.jsonl"
        return (users if users.exists() else self.path).stat().st_mtime

    def users(self) -> list[str]:
        """Return the run folders that hold its result now."""
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
        """Return the cache of a folder of runs."""
        return cls(Path(runs_dir).expanduser() / ".cache")

    def entry(self, stage: Stage) -> CacheEntry:
        """Return the entry of a stage, whether it exists or not."""
        return CacheEntry(self.path / f"{stage.name.replace('/', '-')}-{stage.fingerprint}")

    def entries(self) -> list[CacheEntry]:
        """Return all entries, the one used longest ago first."""
        found = [CacheEntry(path) for path in self.path.glob("[!.]*") if path.is_dir()]
        return sorted(found, key=lambda entry: entry.last_used)

    @contextmanager
    def hold(self, stage: Stage, stop_reason: Callable[[], str | None]) -> Iterator[None]:
        """Hold the lock of a stage's entry; waits while another run holds it.

        Raises `Stopped` when the run is asked to stop meanwhile.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = self.path / f".{self.entry(stage).path.name}.lock"
        waiting = False
        with lock.open("a+", encoding="utf-8") as handle:
            while not _locked(handle):
                if not waiting:
                    say(f"{stage.name}: waits for another run that computes the same stage")
                    waiting = True
                if reason := stop_reason():
                    raise Stopped(reason)
                time.sleep(POLL_SECONDS)
            yield

    def take(self, stage: Stage, folder: RunFolder) -> dict[str, Any] | None:
        """Link an entry's files into a run folder and return its record; None: there is none.

        There is none either where it lacks an output, as a checkpoint that a stage of this run
        branches from and none of the run that made the entry.
        """
        entry = self.entry(stage)
        record = entry.record
        if record is None or not entry.has(stage.outputs):
            return None
        for name in stage.owns:
            source, target = entry.path / "files" / name, folder.path / name
            if source.is_dir():
                with replaced_folder(target) as temporary:
                    _link_tree(source, temporary)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
                _link(source, temporary)
                publish(temporary, target)
        append_line(entry.path / "users.jsonl", {"run": str(folder.path.resolve())})
        return record

    def keep(self, stage: Stage, folder: RunFolder, record: dict[str, Any]) -> None:
        """Add the finished stage of a run folder. A full disk costs the entry, not the run."""
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
            (own / "record.json").write_text(json.dumps(record), encoding="utf-8")
            shutil.rmtree(entry.path, ignore_errors=True)  # damaged, or of an earlier version
            own.rename(entry.path)
        except OSError as error:
            say(f"{stage.name}: not added to the shared cache {self.path}: {error.strerror}")
        finally:
            shutil.rmtree(own, ignore_errors=True)

    def clean(self, keep_bytes: int) -> list[CacheEntry]:
        """Remove entries that no run holds, longest unused first, until the rest is small enough.

        Returns what was removed. What killed writers left is removed too.
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
    """Take the lock of an open file; False while another process has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _link_tree(source: Path, target: Path) -> None:
    """Link the files below a folder, checkpoints and half-written files excluded."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.name == LEFT_OUT or path.name.startswith("."):
            continue
        if path.is_dir():
            _link_tree(path, target / path.name)
        else:
            _link(path, target / path.name)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name: a reflink, else a hard link, else a copy."""
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
