"""Slurm asked and given jobs: `sbatch --test-only` for `plan`, `sbatch` for the verbs that work."""

import shutil
import subprocess
from pathlib import Path

from hpc_llm.errors import UserError
from hpc_llm.rundir import write_text

__all__ = ["ask_slurm", "require_sbatch", "submit"]

ANSWER_SECONDS = 20.0


def ask_slurm(script: str) -> str:
    """Return what `sbatch --test-only` says about a job script, or why it could not be asked.

    Nothing is submitted. A refusal is an answer too, in Slurm's own words.
    """
    if shutil.which("sbatch") is None:
        return "not asked: there is no sbatch on PATH; a login node of the cluster has it"
    try:
        done = _sbatch("--test-only", script=script, seconds=ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer in {ANSWER_SECONDS:.0f} seconds; scontrol ping tells whether Slurm runs"
    return "\n".join(_words(done))


def require_sbatch() -> None:
    """Raise `UserError` where jobs cannot be submitted."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "launch=slurm: there is no sbatch on PATH; call hpc-llm on a login node of the "
            "cluster, or run here with launch=local"
        )


def submit(script: str, path: Path) -> str:
    """Write the job script to `path`, submit it and return the job id.

    Raises `UserError` with Slurm's own words when it refuses; there is no job then.
    """
    write_text(path, script)
    done = _sbatch("--parsable", str(path))
    if done.returncode != 0:
        raise UserError(
            f"launch=slurm: {'; '.join(_words(done))}; mend launch.* or cluster.* (sinfo and "
            "sacctmgr show what there is), and ask with hpc-llm plan before submitting"
        )
    return done.stdout.strip().split(";")[0]  # on federated clusters: ID;CLUSTER


def _sbatch(
    *arguments: str, script: str = "", seconds: float | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sbatch", *arguments],
        input=script,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=seconds,
        check=False,
    )


def _words(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what sbatch said, line by line and without its name in front."""
    lines = (done.stdout + done.stderr).splitlines()
    return [line.removeprefix("sbatch: ").removeprefix("error: ") for line in lines if line.strip()]
