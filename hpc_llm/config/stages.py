"""Stages and composition of a configuration, typed by the settings of their choice.

For Hydra, `stages` is a mapping of mappings, and `compose` a mapping. Here each stage becomes the
dataclass of its method, and `compose` that of its kind, which rejects settings that it does not
have. `from` is a Python keyword, so the field of the dataclass is called `from_stage`.
"""

from collections.abc import Mapping
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hpc_llm.config.suggest import nearest, wrong_value
from hpc_llm.ensembles import settings_of as composition_settings
from hpc_llm.errors import UserError
from hpc_llm.methods import describe, method_names, settings_of, trains
from hpc_llm.rundir import conf_files
from hpc_llm.settings.compose import ComposeSettings
from hpc_llm.settings.stage import SCRATCH, UNTRAINED, StageSettings

__all__ = ["as_written", "recipe_name", "typed_compose", "typed_stages"]


def typed_stages(stages: dict[str, Any]) -> dict[str, StageSettings]:
    """Return the stages as dataclasses of their methods. Raises `UserError` naming the key."""
    return {name: _typed(f"stages.{name}", values) for name, values in stages.items()}


def typed_compose(values: Any) -> ComposeSettings | None:
    """Return `compose` as the dataclass of its kind; None without one. Raises `UserError`."""
    if values is None or isinstance(values, ComposeSettings):
        return values
    if "kind" not in values:
        raise UserError("compose", None, "has no kind", "choose a composition: compose=NAME")
    kind = str(values["kind"])
    made = _of(composition_settings(kind), "compose", values, f"compose={kind}")
    if not isinstance(made, ComposeSettings):
        raise UserError(
            "compose", kind, "its Settings must extend ComposeSettings", "see Extending"
        )
    return made


def _typed(key: str, values: Any) -> StageSettings:
    if isinstance(values, StageSettings):
        return values
    if not isinstance(values, dict) or "method" not in values:
        raise UserError(
            key, None, "has no method",
            f"add +method@{key}=METHOD, one of {', '.join(method_names())}",
        )  # fmt: skip
    method = str(values["method"])
    stage = _of(settings_of(method, key), key, values, f"method {method}")
    assert isinstance(stage, StageSettings)
    if stage.from_stage == SCRATCH and describe(stage.method).after_transplant:
        raise UserError(
            f"{key}.method",
            stage.method,
            "there are no new tokens before the transplant",
            "use a method that trains everything: full",
        )
    if stage.from_stage == UNTRAINED and not trains(stage).body:
        rule = "would leave weights of the model untrained"
        raise UserError(f"{key}.method", stage.method, rule, "use full, or another from")
    return stage


def _of(settings: type[Any], key: str, values: dict[str, Any], owner: str) -> Any:
    """Return `values` of the mapping at `key` as the dataclass `settings` of `owner`."""
    own = {_renamed(name): value for name, value in values.items()}
    known = [_written(name) for name in settings.__dataclass_fields__]
    for name in values:
        if name not in known:
            near = nearest(name, known) or f"choose one of {', '.join(known)}"
            raise UserError(f"{key}.{name}", None, f"{owner} has no such setting", near)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(settings), own)
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        fix = f"see the settings of {key} in hpc-llm adapt --cfg job"
        wrong = wrong_value(error, "", fix)
        field = _written(wrong.key)
        value = own.get(field) if wrong.value is None else wrong.value
        raise UserError(f"{key}.{field}".rstrip("."), value, wrong.rule, wrong.fix) from error


def recipe_name(name: str, stages: Mapping[Any, Any]) -> str:
    """Return the name of a recipe in reports; that of its stages if they are not those of its file.

    A stage is named with its method where they differ: lora2:lora.
    """
    file = conf_files("recipe").get(name)
    if file is None:  # a name of the user's
        return name
    entries = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults") or []
    own = {
        key.partition("@stages.")[2]: method
        for entry in entries
        if isinstance(entry, dict)
        for key, method in entry.items()
        if "@stages." in key
    }
    used = {key: stage.get("method") for key, stage in stages.items() if isinstance(stage, dict)}
    if used == own or not used:
        return name
    return "+".join(key if key == method else f"{key}:{method}" for key, method in used.items())


def as_written(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration as written to YAML: with `from` instead of `from_stage`."""
    stages = config.get("stages") or {}
    written = {
        name: {_written(key): value for key, value in stage.items()}
        for name, stage in stages.items()
    }
    return {**config, "stages": written}


def _written(name: str) -> str:
    return "from" if name == "from_stage" else name


def _renamed(name: str) -> str:
    return "from_stage" if name == "from" else name
