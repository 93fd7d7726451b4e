"""Slurm commands, run in one place: queries may fail, other commands must succeed."""

import os
import shutil
import subprocess
from collections.abc import Sequence

from hpc_llm.errors import UserError

__all__ = ["ANSWER_SECONDS", "answer", "cancel", "query", "release"]

ANSWER_SECONDS = 20
WHOLE_LISTS = {"SLURM_BITSTR_LEN": "0"}  # else squeue truncates a long 7_[0-99] with dots


def query(*command: str) -> tuple[str, str]:
    """Return (output, "") of a command, or ("", error) if it failed."""
    name = command[0]
    if shutil.which(name) is None:
        return "", f"{name}: not found on PATH"
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=ANSWER_SECONDS,
            env=os.environ | WHOLE_LISTS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", f"{name}: no answer in {ANSWER_SECONDS} seconds"
    except OSError as error:
        return "", f"{name}: {error.strerror}"
    if done.returncode != 0:
        said = "; ".join(line for line in done.stderr.splitlines() if line)
        return "", said if said.startswith(name) else f"{name}: {said or done.returncode}"
    return done.stdout, ""


def answer(*command: str) -> str | None:
    """Return the output of a command; None if it is missing, times out or fails."""
    printed, problem = query(*command)
    return None if problem else printed


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs, the last first. Raises `UserError` with Slurm's message."""
    if jobs:
        _call("scancel", *reversed(jobs))


def release(jobs: Sequence[str]) -> None:
    """Release held jobs. Raises `UserError` with Slurm's message."""
    if jobs:
        _call("scontrol", "release", *jobs)


def _call(*command: str) -> None:
    """Run a command that must succeed."""
    if shutil.which(command[0]) is None:
        raise UserError(command[0], None, "not found on PATH", "run hpc-llm on a login node")
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode != 0:
        said = "; ".join((done.stdout + done.stderr).split("\n")).strip("; ")
        raise UserError(
            " ".join(command), None, said, "check with scontrol ping whether Slurm runs"
        )
