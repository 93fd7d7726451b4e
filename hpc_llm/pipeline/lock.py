"""The lock of the run folder, which excludes other processes, and this start's line.

The lock is released when its process ends, on this machine. The line in `starts.jsonl` fences off
processes on lost nodes, which no lock reaches: see `hpc_llm.rundir.fence`.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO

import hpc_llm
from hpc_llm.distributed import Ranks, say, visible
from hpc_llm.errors import CrashLoop, UserError, exit_code
from hpc_llm.pipeline.context import commit
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.rundir import (
    RunFolder,
    Start,
    fingerprint,
    note_start,
    open_regular,
    read_starts,
    refuse_foreign,
    system_errors,
    take_folder,
)
from hpc_llm.rundir.fence import release
from hpc_llm.scheduler import is_running
from hpc_llm.settings import RunConfig
from hpc_llm.training.checkpoints.folder import checkpoints, step_and_attempt

__all__ = ["begun_here", "hold_folder"]

EXIT_INTERRUPTED = 130  # Ctrl-C, as reported by shells


@contextmanager
def hold_folder(folder: RunFolder, ranks: Ranks, start: Start) -> Iterator[None]:
    """Lock the run folder against other processes; record how this start ends (rank 0)."""
    if not ranks.is_first:
        try:
            yield
        finally:
            release()
        return
    with _locked(folder, ranks):
        _refuse_running(folder, ranks)
        take_folder(folder.starts, start)
        try:
            yield
        except BaseException as error:
            note_start(folder.starts, "end", **_end(error))
            raise
        else:
            note_start(folder.starts, "end", code=0)
        finally:
            release()


def begun_here(cfg: RunConfig, folder: RunFolder, ranks: Ranks, todo: Sequence[Stage]) -> Start:
    """Describe a start that runs `todo`: its first stage and step, and its settings."""
    place = todo[0].name if todo else ""
    newest = checkpoints(folder.path / place / "checkpoints") if place else []
    program = (hpc_llm.__version__, commit())
    return Start(
        job=ranks.job_id,
        restart=ranks.restart_count,
        hosts=os.environ.get("SLURM_STEP_NODELIST", os.environ.get("SLURM_JOB_NODELIST", "")),
        stage=place,
        step=max((step_and_attempt(path)[0] for path in newest), default=0),
        settings=fingerprint(asdict(cfg), ranks.world_size, program),
    )


def _end(error: BaseException) -> dict[str, object]:
    if not isinstance(error, Exception):
        return {"code": EXIT_INTERRUPTED, "why": type(error).__name__}
    why = visible(f"{type(error).__name__}: {error}").splitlines()[0][:200]
    end: dict[str, object] = {"code": exit_code(error), "why": why}
    return end | {"refused": True} if isinstance(error, CrashLoop) else end


@contextmanager
def _locked(folder: RunFolder, ranks: Ranks) -> Iterator[None]:
    """Lock the run folder against a second process."""
    path = folder.path / ".lock"
    refuse_foreign(folder.path)
    handle = _lock(path)
    if handle is None and _was_this_job(folder, ranks):
        say(f"{folder.path}: took over the lock from an earlier start of this job")
        path.unlink(missing_ok=True)  # the earlier start keeps the lock of an unlinked file
        handle = _lock(path)
    if handle is None:
        holder = path.read_text(encoding="utf-8").strip() or "another process"
        raise UserError(
            str(folder.path),
            None,
            f"is in use by {holder}",
            f"wait for it, or use another run=NAME; if its node is lost, remove {path}",
        )
    with handle:
        with system_errors(path):
            handle.truncate(0)
            handle.write(f"process {os.getpid()} on {os.uname().nodename}\n")
            handle.flush()
        yield


def _refuse_running(folder: RunFolder, ranks: Ranks) -> None:
    """Raise `UserError` if another job works here, even if the file system has no locks."""
    starts = read_starts(folder.starts)
    job = starts[-1].job if starts and starts[-1].code is None else None
    if job is not None and job != ranks.job_id and is_running(job):
        raise UserError(
            str(folder.path),
            None,
            f"is in use by job {job} on {starts[-1].hosts}",
            "wait for it, cancel it, or use another run=NAME",
        )


def _lock(path: Path) -> IO[str] | None:
    """Return the open, locked file; None if another process holds the lock."""
    number = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    handle = os.fdopen(number, "a+", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


def _was_this_job(folder: RunFolder, ranks: Ranks) -> bool:
    """Return whether the last start here was of this job, before Slurm restarted it.

    Slurm restarts a job only after the earlier start has ended, or its node is considered lost.
    """
    starts = read_starts(folder.starts)
    if not starts or ranks.job_id is None:
        return False
    return starts[-1].job == ranks.job_id and starts[-1].restart < ranks.restart_count
