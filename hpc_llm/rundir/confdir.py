"""Locate `conf/`, inside the installed package or beside it in a checkout, and list the options of
its groups, including those of plug-in folders."""

from pathlib import Path

import hpc_llm
from hpc_llm.rundir.choices import plugin_folders

__all__ = ["conf_dir", "conf_files"]


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


def conf_files(group: str) -> dict[str, Path]:
    """Return the YAML files of a group by the names of its options, in alphabetical order.

    Those of plug-in folders are added; where both have a name, the project's own comes first.
    """
    folders = [*(folder / "conf" for folder in reversed(plugin_folders())), conf_dir()]
    found = {path.stem: path for folder in folders for path in (folder / group).glob("*.yaml")}
    return dict(sorted(found.items()))
