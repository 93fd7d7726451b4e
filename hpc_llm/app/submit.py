"""Submit a verb with launch=slurm as a chain of jobs or a single job, all or nothing."""

import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from hpc_llm.app.run_folders import open_folder
from hpc_llm.distributed import Ranks, say
from hpc_llm.errors import UserError
from hpc_llm.launch import (
    Part,
    SubmittedJob,
    copy_code,
    divide,
    job_script,
    log_path,
    ranks_per_node,
    read_jobs,
    record_jobs,
    require_sbatch,
    submit_chain,
    words_of,
)
from hpc_llm.pipeline import check_start, choose, commit, pipeline, unfinished
from hpc_llm.rundir import RunFolder
from hpc_llm.scheduler import live_jobs
from hpc_llm.settings import RunConfig

__all__ = ["refuse_while_queued", "submit_verb", "submitted_jobs"]


def submit_verb(cfg: RunConfig, ranks: Ranks, verb: str, names: list[str] | None) -> int:
    """Submit the unfinished stages of `verb`, print the job ids and return.

    Missing input is reported now, not when a job starts.
    """
    require_sbatch()
    folder, stages = RunFolder(cfg.folder), pipeline(cfg)
    chosen = choose(stages, names)
    due = unfinished(folder, chosen, verb)
    check_start(cfg, folder, stages, due, cfg.cluster.nodes * ranks_per_node(cfg))
    refuse_while_queued(folder)
    open_folder(cfg, ranks)
    todo = [stage.name for stage in unfinished(folder, chosen, verb)]
    if not todo:
        say(f"{folder.path}: nothing to do, no job submitted")
        return 0
    if cfg.launch.snapshot:
        copy_code(folder.path, commit())
    jobs = _submit(cfg, folder, verb, divide(cfg, todo, whole=names is None))
    record_jobs(folder.jobs, jobs)
    path = shlex.quote(str(folder.path))
    say(f"monitor with hpc-llm status {path}, cancel with hpc-llm cancel {path}")
    for job in jobs:
        after = f", after {', '.join(job.after)}" if job.after else ""
        say(f"submitted job {job.job}: {job.part}{after}; log: {job.log}")
        print(job.job)
    return 0


def refuse_while_queued(*folders: RunFolder) -> None:
    """Raise `UserError` if these runs have jobs in the queue, which would read a changed config."""
    known = {job.job: folder.path for folder in folders for job in read_jobs(folder.jobs)}
    if live := live_jobs(list(known)):
        path = known[live[0]]
        raise UserError(
            path,
            None,
            f"its jobs are in the queue ({', '.join(live)})",
            f"wait for them, cancel them with hpc-llm cancel {path}, or use another run=NAME",
        )


def _submit(cfg: RunConfig, folder: RunFolder, verb: str, parts: list[Part]) -> list[SubmittedJob]:
    scripts = [
        (
            folder.job_script if len(parts) == 1 else folder.chain_script(number, part.name),
            job_script(cfg, verb, folder.config, part),
        )
        for number, part in enumerate(parts, start=1)
    ]
    ids = submit_chain(scripts, held=bool(cfg.launch.options.get("hold")))
    return submitted_jobs(ids, parts, verb, lambda job: log_path(cfg, folder.path, job))


def submitted_jobs(
    ids: Sequence[str], parts: Sequence[Part], verb: str, log: Callable[[str], Path]
) -> list[SubmittedJob]:
    """Return the records of the jobs of a chain; `log` returns the path of a job's log."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return [
        SubmittedJob(
            job=job,
            chain=ids[0],
            part=verb if part.whole else part.name,
            command=words_of(verb, part),
            stages=list(part.stages),
            after=list(ids[number - 1 : number] if number else []),
            log=str(log(job)),
            when=when,
        )
        for number, (job, part) in enumerate(zip(ids, parts, strict=True))
    ]
