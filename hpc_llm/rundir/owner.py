"""Whose folder a run works in: that of this user, and not one that everyone may write to.

Whoever may write to a run folder may change its results, its job scripts and what the next start
reads. A group-writable folder is accepted: a project folder of a group is shared on purpose.
"""

import os
import pwd
import stat
from pathlib import Path

from hpc_llm.errors import UserError

__all__ = ["VARIABLE", "refuse_foreign"]

VARIABLE = "HPC_LLM_TRUST_FOLDER"
"""Environment variable, not a setting: a `config.yaml` in such a folder must not allow itself."""


def refuse_foreign(folder: Path) -> None:
    """Raise `UserError` if `folder` belongs to another user, or if everyone may write to it.

    A folder that does not exist is accepted, and all are with HPC_LLM_TRUST_FOLDER=1. A folder with
    the sticky bit (mode 1777) is not open to everyone: each user changes only their own files.
    """
    if os.environ.get(VARIABLE) == "1" or not folder.exists():
        return
    found = folder.stat()
    trust = f"set {VARIABLE}=1 if you trust everyone who can write there"
    if found.st_uid != os.geteuid():
        rule = f"belongs to {_name(found.st_uid)}, and this process is {_name(os.geteuid())}"
        raise UserError(folder, None, rule, f"use another run=NAME, or {trust}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        rule = f"everyone may write to it (mode {mode:o})"
        raise UserError(folder, None, rule, f"chmod o-w it, or {trust}")


def _name(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
