"""Run folders for verbs: open one for a run, find one by its path, read its logs."""

import uuid
from pathlib import Path

from hpc_llm.distributed import Ranks, say
from hpc_llm.errors import UserError
from hpc_llm.launch import SubmittedJob, expand_output
from hpc_llm.rundir import RunFolder, SweepFolder, refuse_foreign
from hpc_llm.settings import RunConfig

__all__ = [
    "charge_time",
    "is_to_be_submitted",
    "known_folder",
    "last_words",
    "log_of",
    "open_folder",
]

TAIL_BYTES = 20_000


def is_to_be_submitted(cfg: RunConfig, ranks: Ranks, *, from_file: bool) -> bool:
    """Return whether this call submits a job: launch=slurm, and not inside that job."""
    in_its_job = ranks.launcher != "none" or (from_file and ranks.job_id is not None)
    return cfg.launch.name == "slurm" and not in_its_job


def open_folder(cfg: RunConfig, ranks: Ranks) -> RunFolder:
    """Return the run folder, created if needed, with its configuration (written by rank 0)."""
    from hpc_llm import config

    folder = RunFolder(cfg.folder)
    if not ranks.is_first:
        return folder
    try:
        folder.path.mkdir(mode=0o775, parents=True, exist_ok=True)
    except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
        raise UserError(
            "runs_dir",
            cfg.runs_dir,
            f"cannot create {folder.path} ({error.strerror})",
            "use another runs_dir",
        ) from error
    refuse_foreign(folder.path)
    if folder.config.exists():
        try:
            for line in config.differences(folder.config, cfg):
                say(f"{folder.path}: changed {line}")
        except UserError as error:  # stages are compared by the fingerprints in their records
            say(f"{error.key}: {error.rule}; written again with the settings of this command")
    elif folder.record.exists():
        say(f"{folder.config}: is missing; written again with the settings of this command")
    elif any(path.name != ".lock" for path in folder.path.iterdir()):
        raise UserError(
            folder.path,
            None,
            "is not a run folder: it has files but no config.yaml",
            "use another run=NAME",
        )
    config.write(cfg, folder.config)
    return folder


def charge_time(cfg: RunConfig, ranks: Ranks, folder: RunFolder, work: str) -> None:
    """Charge the time since the start of this process to the run's ledger, as that of `work`."""
    from hpc_llm.pipeline.account import Account
    from hpc_llm.training import process_group

    account = Account(cfg, folder.ledger, ranks, uuid.uuid4().hex[:12])
    account.found(process_group.device_name(), None)
    account.add(work, reason="end")


def known_folder(word: str) -> RunFolder:
    """Return the run folder at a path; raises `UserError` if there is none."""
    folder = RunFolder(Path(word))
    if SweepFolder(folder.path).exists():
        raise UserError(
            word,
            None,
            "is a sweep",
            f"pass one of its trials, for example {word}/0",
        )
    if not folder.config.is_file():
        raise UserError(
            word,
            None,
            "is not a run folder: it has no config.yaml",
            "see ls runs",
        )
    return folder


def log_of(folder: RunFolder, job: SubmittedJob) -> Path | None:
    """Return the log of a job; None if `jobs.jsonl` names one that cannot be its log.

    It lies in the run folder, links resolved, or where `launch.options.output` of the run says.
    """
    log = Path(job.log)
    if log.resolve().is_relative_to(folder.path.resolve()):
        return log
    from hpc_llm import config

    stated = config.load(folder.config).launch.options.get("output")
    if stated is None:
        return None
    array, _, task = job.job.partition("_")
    parts = Path(expand_output(str(stated), array, task)).parts
    return log if log.parts[-len(parts) :] == parts and not log.is_symlink() else None


def last_words(folder: RunFolder, job: SubmittedJob) -> str:
    """Return the last line by hpc-llm or the job script in a job's log; "" if it is missing."""
    log = log_of(folder, job)
    if log is None:
        return f"its log is not in the run folder: {job.log}"
    try:
        with log.open("rb") as handle:
            handle.seek(max(0, log.stat().st_size - TAIL_BYTES))
            lines = handle.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    said = [line for line in lines if line.startswith(("hpc-llm: ", "job.sbatch: "))]
    return said[-1] if said else f"see {log}"
