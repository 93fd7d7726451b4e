"""Choices by name: one Python file each, in a package or in a plug-in folder.

Plug-in folders are listed in HPC_LLM_PLUGINS (like PATH) and laid out like the project:
`methods/NAME.py`, `initial/NAME.py`, `ensembles/NAME.py` and `conf/GROUP/NAME.yaml`.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from hpc_llm.errors import UserError

__all__ = ["choice_names", "load_choice", "plugin_folders"]

VARIABLE = "HPC_LLM_PLUGINS"


def plugin_folders() -> list[Path]:
    """Return the plug-in folders, absolute. Raises `UserError` for one that does not exist."""
    words = filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))
    folders = [Path(word).expanduser().absolute() for word in words]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(VARIABLE, folder, "no such folder", f"fix or unset {VARIABLE}")
    return folders


def choice_names(package: ModuleType) -> list[str]:
    """Return the choices of a package in alphabetical order, without importing them."""
    return sorted({path.stem for path in _files(package)})


def load_choice(package: ModuleType, name: str) -> ModuleType:
    """Import the choice `name` of a package. Raises `UserError` with the existing names."""
    key = package.__name__.rsplit(".", 1)[-1].rstrip("s")
    path = next((path for path in _files(package) if path.stem == name), None)
    if path is None:
        raise UserError(key, name, "unknown", f"choose one of {', '.join(choice_names(package))}")
    full = f"{package.__name__}.{name}"
    if full in sys.modules or path.parent == Path(str(package.__file__)).parent:
        return importlib.import_module(full)
    spec = importlib.util.spec_from_file_location(full, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    spec.loader.exec_module(module)
    return module


def _files(package: ModuleType) -> Iterator[Path]:
    """Yield the files of a package's choices, its own first, then those of plug-ins."""
    own = Path(str(package.__file__)).parent
    for folder in (own, *(folder / own.name for folder in plugin_folders())):
        yield from sorted(p for p in folder.glob("*.py") if not p.name.startswith("_"))
