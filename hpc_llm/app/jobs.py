"""`hpc-llm cancel RUN_FOLDER` and `hpc-llm logs RUN_FOLDER [-f]`: the jobs of a run."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hpc_llm.app.arguments import Arguments
from hpc_llm.app.run_folders import known_folder, log_of
from hpc_llm.distributed import visible
from hpc_llm.errors import UserError
from hpc_llm.launch import SubmittedJob, newest_chain, read_jobs
from hpc_llm.rundir import RunFolder, SweepFolder
from hpc_llm.scheduler import cancel, live_jobs, names_and_scripts

__all__ = ["run_cancel", "run_logs"]

LOOK_SECONDS = 0.5  # polling interval of the logs
ASK_SECONDS = 5.0  # polling interval of Slurm, to limit the load on its controller


def run_cancel(arguments: Arguments) -> int:
    """Cancel the remaining jobs of a run, or arrays of a sweep; running ranks save first."""
    sweep = [SweepFolder(Path(word)) for word in arguments.overrides[:1]]
    folder = sweep[0] if sweep and sweep[0].exists() else _one_folder(arguments)
    recorded = {job.job: job for job in read_jobs(folder.jobs)}
    known = names_and_scripts(live_jobs(list(recorded)))
    live = [job for job in recorded if job in known]
    for job in live:
        _refuse_other(folder.path, recorded[job], *known[job])
    cancel(live)
    if live:
        print(f"{folder.path}: cancelled {', '.join(live)}; rerun the same command to resume")
    else:
        print(f"{folder.path}: no pending or running job")
    return 0


def _refuse_other(folder: Path, job: SubmittedJob, name: str, script: str) -> None:
    """Raise `UserError` if a job of the queue is not of this run, whatever `jobs.jsonl` says.

    A job is of the run if its script lies in the run folder (or, for a trial, in that of the sweep)
    or if it has the name that hpc-llm gives.
    """
    places = [folder.resolve()]
    if SweepFolder(folder.parent).exists():
        places.append(folder.parent.resolve())
    file = Path(script)
    here = any(file.resolve().is_relative_to(place) for place in places)
    if (here and file.is_absolute()) or name in {f"{job.part}-{place.name}" for place in places}:
        return
    raise UserError(
        folder,
        None,
        f"job {job.job} of its jobs.jsonl is another one (name {name}, script {script})",
        f"check it, then cancel it with scancel {job.job}",
    )


def run_logs(arguments: Arguments) -> int:
    """Print the logs of a run's newest chain; with -f follow them until its jobs have ended."""
    folder = _one_folder(arguments)
    jobs = newest_chain(folder.jobs)
    if not jobs:
        raise UserError(
            folder.path,
            None,
            "no Slurm job was submitted for this run",
        )
    printer = _Printer(folder, jobs)
    printer.look()
    while arguments.follow:
        ended = _have_ended(jobs)
        for _ in range(round(ASK_SECONDS / LOOK_SECONDS)):
            printer.look()
            if ended:
                return 0
            time.sleep(LOOK_SECONDS)
    return 0


def _have_ended(jobs: Sequence[SubmittedJob]) -> bool:
    """Return whether no job is pending or running; False while Slurm does not answer."""
    try:
        return not live_jobs([job.job for job in jobs])
    except UserError:
        return False


def _one_folder(arguments: Arguments) -> RunFolder:
    if len(arguments.overrides) != 1:
        raise UserError(
            arguments.verb,
            None,
            f"pass one run folder: hpc-llm {arguments.verb} runs/x",
        )
    return known_folder(arguments.overrides[0])


class _Printer:
    """Prints new output in the logs of jobs, with a header where the log changes."""

    def __init__(self, folder: RunFolder, jobs: Sequence[SubmittedJob]) -> None:
        self.jobs = [job for job in jobs if _is_readable(folder, job)]
        self.read = {job.job: 0 for job in jobs}
        self.last: str | None = None

    def look(self) -> None:
        """Print the output since the last call."""
        for job in self.jobs:
            if text := _from(Path(job.log), self.read[job.job]):
                self.read[job.job] += len(text)
                if self.last != job.job:
                    print(visible(f"==> {job.part}, job {job.job} <=="), flush=True)
                self.last = job.job
                sys.stdout.write(visible(text.decode(errors="replace")))
                sys.stdout.flush()


def _is_readable(folder: RunFolder, job: SubmittedJob) -> bool:
    if log_of(folder, job) is not None:
        return True
    where = visible(f"{folder.path}: the log of job {job.job} is not in the run folder: {job.log}")
    print(f"hpc-llm: {where}; skipped", file=sys.stderr)
    return False


def _from(log: Path, place: int) -> bytes:
    """Return a log from an offset; empty if there is no log yet."""
    try:
        with log.open("rb") as handle:
            handle.seek(place)
            return handle.read()
    except OSError:
        return b""
