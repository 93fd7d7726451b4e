"""The `config.json` of a model: from its folder, else from its settings; and its context length.

The folder comes first, because training loads it.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpc_llm.accounting.config_keys import check_names
from hpc_llm.accounting.families import NoFormula, fields_from_config
from hpc_llm.errors import UserError
from hpc_llm.rundir import bounded_json
from hpc_llm.settings import ModelSettings

__all__ = ["context_length", "model_config", "read_config"]

ROBERTA = ("roberta", "xlm-roberta", "camembert")  # two of their positions hold no token


def read_config(file: Path) -> dict[str, Any]:
    """Return the content of a `config.json`; raises `UserError` for an invalid file."""
    fix = "use the model's own file, or set its sizes in model.architecture without model.path"
    return bounded_json(file, fix)


def _looks_local(path: str) -> bool:
    return path.startswith(("/", "./", "../", "~"))


def model_config(model: ModelSettings) -> tuple[Mapping[str, Any], list[str]]:
    """Return the `config.json` of a model and remarks on its source.

    Raises `UserError` where neither folder nor settings have it, for an invalid file and for keys
    of `model.architecture` that the family does not have.
    """
    architecture = model.architecture or {}
    file = None if model.path is None else Path(os.path.expanduser(model.path)) / "config.json"
    if file is not None and file.is_file():
        config = read_config(file)
        other = [key for key in architecture if key in config and config[key] != architecture[key]]
        remark = (
            f"model.path={model.path}: planning uses its config.json, which training loads; "
            f"model.architecture differs in {', '.join(other)} and is ignored"
        )
        return config, [remark] if other else []
    if architecture:
        with suppress(NoFormula):  # transformers knows the keys of other families
            check_names(fields_from_config, architecture)
        if file is None or not _looks_local(str(model.path)):
            return architecture, []
        place = "has no config.json" if file.parent.is_dir() else "no such folder"
        return architecture, [
            f"model.path={model.path}: {place}; the sizes are those of model.architecture"
        ]
    if model.path is None:
        fix = "set model=NAME or model.path=FOLDER"
        raise UserError("model.path", "null", "plan needs a model", fix)
    rule = "plan finds no config.json there, and does not download one"
    fix = "choose model=NAME from conf/model/, or set its sizes in model.architecture"
    raise UserError("model.path", model.path, rule, fix)


def context_length(config: Mapping[str, Any]) -> int | None:
    """Return the most tokens that a sequence of the model may have; None: no limit (ALiBi).

    `config` is a `config.json`, or `model.config.to_dict()` of a loaded model; of a multimodal
    model its text part counts.
    """
    text = config.get("text_config") or config
    found = text.get("max_position_embeddings") or text.get("n_positions")
    if found and text.get("model_type") in ROBERTA:
        return int(found) - 2
    return int(found) if found else None
