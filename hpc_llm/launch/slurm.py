"""Slurm asked and given jobs: `sbatch --test-only` for `plan`, `sbatch` for the verbs that work."""

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

# Variables that sbatch reads under another name than that of the option
VARIABLES = {"time": "TIMELIMIT", "mem": "MEM_PER_NODE", "array": "ARRAY_INX"}


def ask_slurm(script: str) -> str:
    """Return what `sbatch --test-only` says about a job script, or why it could not be asked.

    Nothing is submitted. A refusal is an answer too, in Slurm's own words.
    """
    if shutil.which("sbatch") is None:
        return "not asked: there is no sbatch on PATH; a login node of the cluster has it"
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
    """Raise `UserError` where jobs cannot be submitted."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "launch",
            "slurm",
            "there is no sbatch on PATH",
            "call hpc-llm on a login node of the cluster, or run here with launch=local",
        )


def submit(script: str, path: Path, *options: str) -> str:
    """Write the job script to `path`, submit it and return the job id.

    Raises `UserError` with Slurm's own words when it refuses; there is no job then.
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
            "fix launch.* or cluster.* (sinfo and sacctmgr show what there is), and ask"
            " with hpc-llm plan before submitting",
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

    A job begins when the one before it in its chain has ended well; with `dependency="aftercorr"`
    each task of an array when that with its number has. One that cannot begin any more is cancelled
    by Slurm. The first of each chain is held until all are accepted (with `held` it stays so): when
    one is refused, or this is interrupted, nothing has begun and none is left.
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
                "none of the chain has begun, and what was submitted of it is cancelled ("
                f"{', '.join(jobs)})",
            ) from error
        raise
    return submitted


def _own_variables(script: str) -> list[str]:
    """Return the variables of sbatch that a script has options for: they would win over those."""
    keys = re.findall(r"^#SBATCH '?--([a-z-]+)", script, re.MULTILINE)
    return ["SBATCH_" + VARIABLES.get(key, key.replace("-", "_").upper()) for key in keys]


def _words(said: str) -> list[str]:
    """Return what sbatch said, line by line and without its name in front."""
    lines = said.splitlines()
    return [line.removeprefix("sbatch: ").removeprefix("error: ") for line in lines if line.strip()]
