"""`hpc-llm cancel RUN_FOLDER` and `hpc-llm logs RUN_FOLDER [-f]`: the jobs of a run."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hpc_llm.app.arguments import Arguments
from hpc_llm.app.run_folders import known_folder
from hpc_llm.errors import UserError
from hpc_llm.launch import SubmittedJob, newest_chain, read_jobs
from hpc_llm.rundir import RunFolder, SweepFolder
from hpc_llm.scheduler import cancel, live_jobs

__all__ = ["run_cancel", "run_logs"]

LOOK_SECONDS = 0.5  # between two looks at the logs
ASK_SECONDS = 5.0  # between two questions to Slurm, whose answers cost it something


def run_cancel(arguments: Arguments) -> int:
    """Cancel what is left of a run's jobs, or of a sweep's arrays; ranks that run save first."""
    sweep = [SweepFolder(Path(word)) for word in arguments.overrides[:1]]
    folder = sweep[0] if sweep and sweep[0].exists() else _one_folder(arguments)
    live = live_jobs([job.job for job in read_jobs(folder.jobs)])
    cancel(live)
    if live:
        print(f"{folder.path}: cancelled {', '.join(live)}; the same command resumes from there")
    else:
        print(f"{folder.path}: no job waits or runs")
    return 0


def run_logs(arguments: Arguments) -> int:
    """Print the logs of a run's newest chain; with -f go on until its jobs have ended."""
    folder = _one_folder(arguments)
    jobs = newest_chain(folder.jobs)
    if not jobs:
        raise UserError(
            folder.path,
            None,
            "no job of Slurm was submitted from here",
        )
    printer = _Printer(jobs)
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
    """Return whether no job waits or runs; not while Slurm does not answer."""
    try:
        return not live_jobs([job.job for job in jobs])
    except UserError:
        return False


def _one_folder(arguments: Arguments) -> RunFolder:
    if len(arguments.overrides) != 1:
        raise UserError(
            arguments.verb,
            None,
            f"give one run folder: hpc-llm {arguments.verb} runs/x",
        )
    return known_folder(arguments.overrides[0])


class _Printer:
    """Prints what is new in the logs of some jobs, with a line where another log begins."""

    def __init__(self, jobs: Sequence[SubmittedJob]) -> None:
        self.jobs = jobs
        self.read = {job.job: 0 for job in jobs}
        self.last: str | None = None

    def look(self) -> None:
        """Print what was added since the last look."""
        for job in self.jobs:
            if text := _from(Path(job.log), self.read[job.job]):
                self.read[job.job] += len(text)
                if self.last != job.job:
                    print(f"==> {job.part}, job {job.job} <==", flush=True)
                self.last = job.job
                sys.stdout.write(text.decode(errors="replace"))
                sys.stdout.flush()


def _from(log: Path, place: int) -> bytes:
    """Return a log from a place on; nothing where there is no log yet."""
    try:
        with log.open("rb") as handle:
            handle.seek(place)
            return handle.read()
    except OSError:
        return b""
