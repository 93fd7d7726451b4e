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

LOOK_SECONDS = 0.5  # polling interval of the logs
ASK_SECONDS = 5.0  # polling interval of Slurm, to limit the load on its controller


def run_cancel(arguments: Arguments) -> int:
    """Cancel the remaining jobs of a run, or arrays of a sweep; running ranks save first."""
    sweep = [SweepFolder(Path(word)) for word in arguments.overrides[:1]]
    folder = sweep[0] if sweep and sweep[0].exists() else _one_folder(arguments)
    live = live_jobs([job.job for job in read_jobs(folder.jobs)])
    cancel(live)
    if live:
        print(f"{folder.path}: cancelled {', '.join(live)}; rerun the same command to resume")
    else:
        print(f"{folder.path}: no pending or running job")
    return 0


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
    printer = _Printer(jobs)
    printer.look()
    while arguments.follow:
        ended = _have_ended(jobs)
        for _ in range(round(ASK_SECONDS / LOOK_SECONDS)):
            printer.look()
            if ended or getattr(sys.stdout, "ended", False):  # or the reader has gone away
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

    def __init__(self, jobs: Sequence[SubmittedJob]) -> None:
        self.jobs = jobs
        self.read = {job.job: 0 for job in jobs}
        self.last: str | None = None

    def look(self) -> None:
        """Print the output since the last call."""
        for job in self.jobs:
            if text := _from(Path(job.log), self.read[job.job]):
                self.read[job.job] += len(text)
                if self.last != job.job:
                    print(f"==> {job.part}, job {job.job} <==", flush=True)
                self.last = job.job
                sys.stdout.write(text.decode(errors="replace"))
                sys.stdout.flush()


def _from(log: Path, place: int) -> bytes:
    """Return a log from an offset; empty if there is no log yet."""
    try:
        with log.open("rb") as handle:
            handle.seek(place)
            return handle.read()
    except OSError:
        return b""
