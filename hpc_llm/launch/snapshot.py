"""A snapshot of this program in the run folder, so that a queued job runs the submitted code."""

import shutil
from pathlib import Path

import hpc_llm
from hpc_llm.rundir import conf_dir, replaced_folder

__all__ = ["copy_code"]

COMMIT = "COMMIT"  # beside the copied package: the commit it was copied from


def copy_code(folder: Path, commit: str | None) -> None:
    """Copy the package, its configuration and its commit to `folder`/code, replacing it.

    With that folder first in PYTHONPATH, Python imports the copy.
    """
    source = Path(hpc_llm.__file__).parent
    with replaced_folder(folder / "code") as new:
        package = new / "hpc_llm"
        shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__", "conf"))
        shutil.copytree(conf_dir(), package / "conf")
        if commit is not None:
            (new / COMMIT).write_text(f"{commit}\n", encoding="utf-8")
