"""Start Python child processes that import no module from the current folder.

`python -m MODULE` puts the current folder first on the path of imports. A run starts in a folder
that others may write to (a shared project folder, a downloaded checkpoint), and a `torch.py` there
would run as the user. `-P` and PYTHONSAFEPATH leave that folder out (Python 3.11).
"""

import os
import site
import sys
from collections.abc import Mapping
from pathlib import Path

import hpc_llm

__all__ = ["SAFE_PATH", "child_environment", "python_module"]

SAFE_PATH = {"PYTHONSAFEPATH": "1"}


def python_module(module: str) -> tuple[str, ...]:
    """Return the command that runs `module` as a program, without the current folder on its path.

    Start it with `child_environment`, which lets it find the package that is running now.
    """
    return (sys.executable, "-P", "-m", module)


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` for a child process that imports this hpc_llm and nothing nearby.

    PYTHONPATH gets absolute folders only: an empty entry, as in `/opt/lib:`, is the current folder.
    An hpc_llm that is not installed (a checkout, a snapshot in a run folder) comes first.
    """
    words = environment.get("PYTHONPATH", "").split(os.pathsep)
    folders = [os.path.abspath(word) for word in words if word]
    root = str(Path(hpc_llm.__file__).resolve().parent.parent)
    if root not in {*folders, *site.getsitepackages(), site.getusersitepackages()}:
        folders.insert(0, root)
    path = {"PYTHONPATH": os.pathsep.join(folders)} if folders else {}
    return {**environment, **SAFE_PATH, **path}
