"""submitit's way to Slurm, for a job script that is there already.

What submitit submits by itself runs a pickled function, has no --kill-on-bad-exit, lets SIGTERM
pass by and gives rank 0 alone the signal to save. So the script is ours; submitit calls sbatch, and
distinguishes a refusal from an answer.
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
    """Submits the script at `path` with `options` of sbatch, as it is."""

    def __init__(self, folder: str, path: Path, options: Sequence[str], unset: Sequence[str]):
        super().__init__(folder)
        self._path, self._options = path.absolute(), options
        self._unset = [f"--unset={name}" for name in unset]

    @classmethod
    def affinity(cls) -> int:
        """Return whether this machine can submit."""
        return -1 if shutil.which("sbatch") is None else 2

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return self._path.read_text(encoding="utf-8")

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        # the file of the run folder and not submitit's copy of it: scontrol shows its path
        return ["env", *self._unset, "sbatch", "--parsable", *self._options, str(self._path)]

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        """Return the id from ID, or ID;CLUSTER, below what a site's sbatch says besides."""
        said = string if isinstance(string, str) else string.decode()
        found = re.search(r"^(\d+)(;.*)?$", said, re.MULTILINE)
        return found[1] if found else SlurmExecutor._get_job_id_from_submission_command(said)


def submit_script(path: Path, options: Sequence[str] = (), unset: Sequence[str] = ()) -> str:
    """Submit the job script at `path`, without the variables `unset`, and return the job's id.

    Raises `RuntimeError` with what sbatch said where it refuses; there is no job then.
    """
    # not in the run folder: submitit puts the id in the place of a %j in the name of its folder
    with TemporaryDirectory() as folder, redirect_stderr(StringIO()):  # the words are in the error
        return _ScriptExecutor(folder, path, options, unset)._submit_command("").job_id
