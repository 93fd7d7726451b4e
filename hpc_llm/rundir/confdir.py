"""Locate `conf/`: inside the installed package, or beside it in a checkout."""

from pathlib import Path

import hpc_llm

__all__ = ["conf_dir"]


def conf_dir() -> Path:
    """Return the folder of the YAML configuration, however the package is installed."""
    package = Path(hpc_llm.__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"no conf/config.yaml in {package} or beside it: the installation is incomplete; "
        "reinstall hpc-llm"
    )
