"""The `config.json` of a model as `plan` reads it: from its folder, else from its settings.

The folder comes first, as it is what training loads.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc_llm.accounting.config_keys import check_names
from hpc_llm.accounting.families import fields_from_config
from hpc_llm.errors import UserError
from hpc_llm.settings import ModelSettings

__all__ = ["model_config", "positions", "read_config"]

ROBERTA = ("roberta", "xlm-roberta", "camembert")  # two of their positions hold no token


def read_config(file: Path) -> dict[str, Any]:
    """Return the content of a `config.json`; raises `UserError` where it is none."""
    cure = "give the model's own file, or its sizes as model.architecture without model.path"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is no UTF-8 text; {cure}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{file}: is no JSON (line {error.lineno}: {error.msg}); {cure}") from error
    if not isinstance(config, dict):
        raise UserError(f"{file}: must hold one object, as in {{...}}; {cure}")
    return config


def _looks_local(path: str) -> bool:
    return path.startswith(("/", "./", "../", "~"))


def model_config(model: ModelSettings) -> tuple[Mapping[str, Any], list[str]]:
    """Return the `config.json` of a model and remarks on where it comes from.

    Raises `UserError` where neither folder nor settings tell it, for a file that cannot be read
    and for keys of `model.architecture` that the family does not have.
    """
    architecture = model.architecture or {}
    file = None if model.path is None else Path(model.path).expanduser() / "config.json"
    if file is not None and file.is_file():
        config = read_config(file)
        other = [key for key in architecture if key in config and config[key] != architecture[key]]
        remark = (
            f"model.path={model.path}: its config.json is planned, as it is what training loads; "
            f"model.architecture differs in {', '.join(other)} and is not used"
        )
        return config, [remark] if other else []
    if architecture:
        check_names(fields_from_config, architecture)
        if file is None or not _looks_local(str(model.path)):
            return architecture, []
        place = "holds no config.json" if file.parent.is_dir() else "is no folder here"
        return architecture, [
            f"model.path={model.path}: {place}; the sizes are those of model.architecture"
        ]
    if model.path is None:
        raise UserError("model.path=null: plan needs a model; give model=NAME or model.path=FOLDER")
    raise UserError(
        f"model.path={model.path}: plan finds no config.json there, and does not download one; "
        "choose model=NAME out of conf/model/, or give its sizes as model.architecture"
    )


def positions(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a row of the model may have; None: any number."""
    found = config.get("max_position_embeddings") or config.get("n_positions")
    if found and config.get("model_type") in ROBERTA:
        return int(found) - 2
    return int(found) if found else None
