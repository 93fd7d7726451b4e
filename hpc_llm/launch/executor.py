"""Submit an existing job script through submitit.

submitit's own job scripts run a pickled function, lack --kill-on-bad-exit, ignore SIGTERM and
deliver the signal to save to rank 0 only. So the script is ours; submitit calls sbatch and parses
its reply or error.
"""

import re
import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from submitit import SlurmExecutor

__all__ = ["submit_script"]


class _ScriptExecutor(SlurmExecutor):
    """Submits the script at `path` unchanged, with `options` for sbatch."""

    def __init__(self, folder: str, path: Path, options: Sequence[str], unset: Sequence[str]):
        super().__init__(folder)
        self._path, self._options = path.absolute(), options
        self._unset = [f"--unset={name}" for name in unset]

    @classmethod
    def affinity(cls) -> int:
        """Return a positive value if this machine can submit, else -1."""
        return -1 if shutil.which("sbatch") is None else 2

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return self._path.read_text(encoding="utf-8")

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        # the file in the run folder, not submitit's copy: scontrol shows its path
        return ["env", *self._unset, "sbatch", "--parsable", *self._options, str(self._path)]

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        """Return the id from ID or ID;CLUSTER, below other output of a site's sbatch."""
        said = string if isinstance(string, str) else string.decode()
        found = re.search(r"^(\d+)(;.*)?$", said, re.MULTILINE)
        return found[1] if found else SlurmExecutor._get_job_id_from_submission_command(said)


def submit_script(path: Path, options: Sequence[str] = (), unset: Sequence[str] = ()) -> str:
    """Submit the job script at `path` without the variables `unset`; return the job id.

    Raises `RuntimeError` with sbatch's message if it rejects the job; no job exists then.
    """
    # not in the run folder: submitit replaces %j in the name of its folder by the id
    with TemporaryDirectory() as folder, redirect_stderr(StringIO()):  # the error has the message
        return _ScriptExecutor(folder, path, options, unset)._submit_command("").job_id
