"""Submit jobs to Slurm: `sbatch --test-only` for `plan`, `sbatch` for all other verbs."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from itertools import chain as flat
from pathlib import Path

from hpc_llm.errors import UserError
from hpc_llm.rundir import write_text
from hpc_llm.scheduler.commands import ANSWER_SECONDS, cancel, release

__all__ = ["ask_slurm", "require_sbatch", "submit", "submit_chain", "submit_chains"]

# Input environment variables of sbatch whose names differ from the option
VARIABLES = {"time": "TIMELIMIT", "mem": "MEM_PER_NODE", "array": "ARRAY_INX"}


def ask_slurm(script: str) -> str:
    """Return the output of `sbatch --test-only` for a job script, or why it could not run.

    Nothing is submitted. If Slurm would reject the job, its message is returned.
    """
    if shutil.which("sbatch") is None:
        return "not tested: no sbatch on PATH; run hpc-llm plan on a login node of the cluster"
    unset = _own_variables(script)
    try:
        done = subprocess.run(
            ["sbatch", "--test-only"],
            input=script,
            env={key: value for key, value in os.environ.items() if key not in unset},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {ANSWER_SECONDS} seconds; check with scontrol ping whether Slurm runs"
    return "\n".join(_words(done.stdout + done.stderr))


def require_sbatch() -> None:
    """Raise `UserError` if jobs cannot be submitted."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "launch",
            "slurm",
            "no sbatch on PATH",
            "run hpc-llm on a login node of the cluster, or run here with launch=local",
        )


def submit(script: str, path: Path, *options: str) -> str:
    """Write the job script to `path`, submit it and return the job id.

    Raises `UserError` with Slurm's message if it rejects the job; no job exists then.
    """
    from hpc_llm.launch.executor import submit_script

    write_text(path, script)
    try:
        return submit_script(path, options, unset=_own_variables(script))
    except RuntimeError as error:
        raise UserError(
            "launch",
            "slurm",
            "; ".join(_words(str(error))),
            "fix launch.* or cluster.* (sinfo and sacctmgr list what exists); test with "
            "hpc-llm plan before submitting",
        ) from error


def submit_chain(scripts: Sequence[tuple[Path, str]], *, held: bool = False) -> list[str]:
    """Submit one chain, as `submit_chains` does."""
    return submit_chains([scripts], held=held)[0]


def submit_chains(
    chains: Sequence[Sequence[tuple[Path, str]]],
    *,
    dependency: str = "afterok",
    held: bool = False,
) -> list[list[str]]:
    """Submit chains of job scripts and return the job ids of each.

    A job starts when the one before it in its chain has succeeded; with `dependency="aftercorr"`,
    each array task when the task with its id has. Slurm cancels jobs whose dependency can no longer
    be satisfied. The first job of each chain is held until all are accepted (with `held` it stays
    held): if one is rejected, or this call is interrupted, all are cancelled before any has
    started.
    """
    several = sum(map(len, chains)) > 1
    submitted: list[list[str]] = []
    path = Path()
    try:
        for chain in chains:
            submitted.append([])
            for path, script in chain:
                options = ["--hold"] * several
                if before := submitted[-1][-1:]:
                    options = [f"--dependency={dependency}:{before[0]}"]
                    options.append("--kill-on-invalid-dep=yes")
                submitted[-1].append(submit(script, path, *options))
        if several and not held:
            release([jobs[0] for jobs in submitted])
    except BaseException as error:
        jobs = list(flat(*submitted))
        cancel(jobs)
        if isinstance(error, UserError) and jobs:
            raise UserError(
                path.stem,
                None,
                error,
                f"no job of the chain has started; cancelled {', '.join(jobs)}",
            ) from error
        raise
    return submitted


def _own_variables(script: str) -> list[str]:
    """Return sbatch's environment variables that would override options of the script."""
    keys = re.findall(r"^#SBATCH '?--([a-z-]+)", script, re.MULTILINE)
    return ["SBATCH_" + VARIABLES.get(key, key.replace("-", "_").upper()) for key in keys]


def _words(said: str) -> list[str]:
    """Return sbatch's output line by line, without the prefix with its name."""
    lines = said.splitlines()
    return [line.removeprefix("sbatch: ").removeprefix("error: ") for line in lines if line.strip()]
