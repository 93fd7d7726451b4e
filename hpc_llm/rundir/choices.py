"""Choices by name: one Python file each, in a package or in a plug-in folder.

Plug-in folders are listed in HPC_LLM_PLUGINS (like PATH) and laid out like the project:
`methods/NAME.py`, `modes/NAME.py`, `initial/NAME.py`, `ensembles/NAME.py`, `kinds/NAME.py`,
`metrics/NAME.py`, `rules/NAME.py` and `conf/GROUP/NAME.yaml`.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from hpc_llm.errors import UserError
from hpc_llm.rundir.fingerprint import fingerprint

__all__ = ["choice_code", "choice_names", "load_choice", "plugin_folders"]

VARIABLE = "HPC_LLM_PLUGINS"


def plugin_folders() -> list[Path]:
    """Return the plug-in folders, absolute. Raises `UserError` for one that does not exist."""
    words = filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))
    folders = [Path(os.path.expanduser(word)).absolute() for word in words]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(VARIABLE, folder, "is no folder", f"fix or unset {VARIABLE}")
    return folders


def choice_names(package: ModuleType) -> list[str]:
    """Return the choices of a package in alphabetical order, without importing them."""
    return sorted({path.stem for path in _files(package)})


def load_choice(package: ModuleType, name: str, *defines: str) -> ModuleType:
    """Import the choice `name` of a package, a module that `defines` these names.

    Raises `UserError` with the existing names for an unknown choice, and for a plug-in file that
    cannot be imported or does not define them.
    """
    path = _file(package, name)
    full = f"{package.__name__}.{name}"
    if _is_own(package, path):
        return importlib.import_module(full)
    if full in sys.modules and sys.modules[full].__file__ == str(path):
        return sys.modules[full]
    spec = importlib.util.spec_from_file_location(full, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    try:
        spec.loader.exec_module(module)
        missing = [word for word in defines if not hasattr(module, word)]
        if missing:
            raise AttributeError(f"it defines no {', '.join(missing)}")
    except Exception as error:
        del sys.modules[full]
        rule = f"cannot be used ({type(error).__name__}: {error})"
        raise UserError(str(path), None, rule, "correct the file") from error
    return module


def choice_code(package: ModuleType, name: str) -> dict[str, str]:
    """Return what stands for the code of a plug-in choice in fingerprints; {} for an own choice."""
    path = _file(package, name)
    return {} if _is_own(package, path) else {"code": fingerprint(path.read_text("utf-8"))}


def _file(package: ModuleType, name: str) -> Path:
    path = {path.stem: path for path in reversed([*_files(package)])}.get(name)
    if path is None:
        key = package.__name__.rsplit(".", 1)[-1].rstrip("s")
        raise UserError(key, name, "unknown", f"choose one of {', '.join(choice_names(package))}")
    return path


def _is_own(package: ModuleType, path: Path) -> bool:
    return path.parent == Path(str(package.__file__)).parent


def _files(package: ModuleType) -> Iterator[Path]:
    """Yield the files of a package's choices, its own first, then those of plug-ins.

    Raises `UserError` for a plug-in file with the name of an own choice.
    """
    own = Path(str(package.__file__)).parent
    names = set()
    for folder in (own, *(folder / own.name for folder in plugin_folders())):
        for path in sorted(p for p in folder.glob("*.py") if not p.name.startswith("_")):
            if folder == own:
                names.add(path.stem)
            elif path.stem in names:
                rule = f"hpc_llm has a choice named {path.stem}"
                raise UserError(str(path), None, rule, "rename the file")
            yield path
