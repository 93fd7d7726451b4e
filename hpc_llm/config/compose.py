"""From `conf/` and command-line overrides to a typed, checked `RunConfig`, and back to YAML.

Hydra composes once; ranks and later verbs load the resolved `config.yaml` of the run folder.
"""

import itertools
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from hpc_llm.config.launchers import as_launch
from hpc_llm.config.old_names import new_form, refuse_old_names
from hpc_llm.config.stages import as_written, recipe_name, typed_compose, typed_stages
from hpc_llm.config.suggest import OPEN_ENDED, explain, refuse_groups, refuse_hydra, wrong_value
from hpc_llm.config.words import holds_list, in_hydra_syntax, parse_override
from hpc_llm.corpus.rules import build_filter
from hpc_llm.errors import UserError
from hpc_llm.rundir import check_yaml, conf_dir, flat, write_text
from hpc_llm.rundir.choices import plugin_folders
from hpc_llm.settings import RunConfig
from hpc_llm.settings.secrets import refuse_secrets
from hpc_llm.vocabulary.initial import check_transplant
from hpc_llm.vocabulary.modes import check_mode

__all__ = [
    "as_yaml",
    "combinations",
    "compose",
    "differences",
    "load",
    "swept_keys",
    "typed",
    "write",
]

ELSEWHERE = (
    "run",
    "runs_dir",
    "cache",
    "rerun",
    "preflight",
    "sbs",
)  # settings that do not change a result
EXAMPLE_KEYS = ("model", "corpus", "experiment", "recipe", "compose")
OPEN_STAGE = re.compile(r"stages\.[^.]+\.(schedule|text)\.")  # mappings of a stage that take keys

SOURCE = re.compile(r"corpus\.sources\.([^.]+)(?:\.([^.]+))?")


def compose(overrides: list[str], example: bool = False) -> DictConfig:
    """Return the resolved configuration for `overrides`.

    With `example`, and if the overrides set no model, corpus, recipe or experiment, the embedded
    example is selected: `experiment=example` is prepended.
    Raises `UserError` for an unknown key (with the nearest known ones) or a value of a wrong type.
    """
    ConfigStore.instance().store(name="run_config", node=RunConfig)
    OmegaConf.register_new_resolver("sum", _sum, replace=True)
    parsed = _parse(overrides)
    refuse_hydra(parsed)
    refuse_old_names(parsed)
    refuse_groups(parsed)
    keys = [override.get_key_element().lstrip("+~") for override in parsed]
    if example and not any(key.split(".")[0] in EXAMPLE_KEYS for key in keys):
        overrides = ["experiment=example", *overrides]
        parsed = _parse(overrides)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        try:
            words = [_as_meant(override) for override in parsed]
            config = hydra_compose("config", [*_search_path(), *words])
            OmegaConf.resolve(config)
            stages = OmegaConf.to_container(config.stages) if config.stages else {}
            assert isinstance(stages, dict)
            config.recipe.name = recipe_name(config.recipe.name, stages)
            if any(override.is_add() for override in parsed):  # "+" slips past the schema
                return _through_schema(config)
            return config
        except YAMLError as error:
            text = " ".join(str(error).split())
            raise UserError("conf", None, f"not valid YAML: {text}", "correct the file") from error
        except (HydraException, OmegaConfBaseException, ValueError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            raise explain(error, keys, _stage_keys(parsed)) from error


def _sum(*numbers: int) -> int:
    """Return the sum of `${sum:A,B,...}` in a YAML file of `conf/`."""
    return sum(numbers)


def _search_path() -> list[str]:
    """Return the override that adds plug-in folders to Hydra's search path."""
    folders = [folder / "conf" for folder in plugin_folders() if (folder / "conf").is_dir()]
    for file in itertools.chain(*(folder.rglob("*.yaml") for folder in folders)):
        check_yaml(file)
    return [f"hydra.searchpath=[{','.join(f'file://{f}' for f in folders)}]"] if folders else []


def _stage_keys(parsed: list[Override]) -> list[str]:
    """Return the settings of the recipe's stages, of the chosen methods and of the composition."""
    groups = [
        o.input_line or ""
        for o in parsed
        if o.key_or_group in ("recipe", "compose") or "@" in o.get_key_element()
    ]
    try:
        config = hydra_compose("config", [*_search_path(), *groups])
    except (HydraException, OmegaConfBaseException):
        return []
    stages = [
        f"stages.{name}.{key}" for name, stage in (config.stages or {}).items() for key in stage
    ]
    return [*stages, *(f"compose.{key}" for key in config.compose or {})]


def _through_schema(config: DictConfig) -> DictConfig:
    """Return `config` merged into the schema again, which rejects unknown keys."""
    merged = OmegaConf.merge(OmegaConf.structured(RunConfig), OmegaConf.to_container(config))
    assert isinstance(merged, DictConfig)
    return merged


def typed(config: DictConfig) -> RunConfig:
    """Return the checked dataclasses of a resolved configuration.

    Raises `UserError` for an invalid value, for a setting that a stage's method does not have, and
    for an unknown initialisation.
    """
    try:
        return _typed(config)
    except MissingMandatoryValue as error:
        fix = "add it to the YAML file of the option"
        raise UserError(str(error.full_key), None, "has no value", fix) from error
    except OmegaConfBaseException as error:
        raise wrong_value(error, "settings") from error


def _typed(config: DictConfig) -> RunConfig:
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    refuse_secrets(flat({str(key): value for key, value in plain.items()}))
    stages = typed_stages(plain.pop("stages", None) or {})
    made = typed_compose(plain.pop("compose", None))
    schema = OmegaConf.merge(OmegaConf.structured(RunConfig), plain)
    assert isinstance(schema, DictConfig)
    schema.stages, schema.compose = stages, made
    value = OmegaConf.to_object(schema)
    assert isinstance(value, RunConfig)
    check_mode(value)
    check_transplant(value.transplant)
    build_filter(value.corpus)
    return value


def write(config: RunConfig, path: Path) -> None:
    """Write the configuration as YAML, atomically."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(as_written(asdict(config)))))


def load(path: Path) -> RunConfig:
    """Load a configuration written by `write`."""
    check_yaml(path)
    try:
        loaded = OmegaConf.load(path)
        if not loaded:
            raise TypeError("it has no settings")
        if (old := OmegaConf.select(loaded, "recipe.stages")) is not None:
            raise new_form(old)
        return _typed(loaded)  # type: ignore[arg-type]
    except FileNotFoundError as error:
        raise UserError(
            str(path),
            None,
            f"no such file on {os.uname().nodename}; all nodes of a job must see its run folder",
            "put runs_dir on a shared file system",
        ) from error
    except (
        YAMLError,
        UnicodeDecodeError,
        AttributeError,
        TypeError,
        AssertionError,
        OSError,
    ) as error:
        raise _unreadable(path, error) from error
    except OmegaConfBaseException as error:
        first = str(error).splitlines()[0]
        raise UserError(
            str(path), None, f"written by another version: {first}", "start a new run=NAME"
        ) from error


def _unreadable(path: Path, error: object) -> UserError:
    text = " ".join(str(error).split())
    return UserError(str(path), None, f"cannot be read: {text}", "restore it, or remove it")


def as_yaml(config: DictConfig) -> str:
    """Return a composed configuration as YAML."""
    return OmegaConf.to_yaml(config)


def differences(path: Path, new: RunConfig) -> list[str]:
    """Return `key: old -> new` for every setting that differs from the file at `path`.

    The location of the run is excluded, and so are settings unknown to the version that wrote the
    file: a run folder may outlive an upgrade.
    """
    before, after = flat(_plain(path)), flat(as_written(asdict(new)))
    keys = [key for key in sorted({*before, *after}) if key.split(".")[0] not in ELSEWHERE]
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in keys
        if before.get(key) != after.get(key) and (key in before or key.startswith(OPEN_ENDED))
    ]


def _plain(path: Path) -> dict[str, Any]:
    check_yaml(path)
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(loaded, dict) or not loaded:
        raise _unreadable(path, "it has no settings")
    return {str(key): value for key, value in loaded.items()}


def combinations(overrides: list[str]) -> list[list[str]]:
    """Return the overrides of each run of a sweep (KEY=A,B or Hydra's range, choice, glob).

    Settings of Hydra's submitit launcher are translated to those of `launch`.
    """
    choices = []
    for override in _parse_sweep(overrides):
        values = [override.input_line or ""]
        if override.is_sweep_override():
            key = override.get_key_element()
            values = [f"{key}={value}" for value in override.sweep_string_iterator()]
        choices.append(values)
    return [list(choice) for choice in itertools.product(*choices)]


def swept_keys(overrides: list[str]) -> list[str]:
    """Return the swept keys, in the order of `combinations`."""
    return [over.get_key_element() for over in _parse_sweep(overrides) if over.is_sweep_override()]


def _parse_sweep(overrides: list[str]) -> list[Override]:
    words = (in_hydra_syntax(word, sweep=True) for word in overrides)
    parsed = [parse_override(line) for line in as_launch([parse_override(w) for w in words])]
    refuse_hydra(parsed)
    if not any(override.is_sweep_override() for override in parsed):
        fix = "give a setting several values, as in stages.lora.rank=8,16, or remove -m"
        raise UserError("-m", None, "there is nothing to sweep", fix)
    return parsed


def _parse(overrides: list[str]) -> list[Override]:
    return [parse_override(in_hydra_syntax(word)) for word in overrides]


def _as_meant(override: Override) -> str:
    """Return an override in Hydra's syntax.

    A single value for a list field becomes a list: corpus.target=a.jsonl. A new key in an open
    mapping needs no plus sign: zero.extra.wall_clock_breakdown=true.
    """
    line: str = override.input_line or ""
    if override.is_delete() or override.is_sweep_override():
        return line
    value = override.value()
    if holds_list(override.key_or_group) and not (value is None or isinstance(value, list)):
        key, value = line.split("=", 1)
        line = f"{key}=[{value}]"
    place = f"{override.key_or_group}."
    if found := SOURCE.fullmatch(override.key_or_group):
        value = line.split("=", 1)[1]
        inner = f"{{{found[2]}: {value}}}" if found[2] else value
        return f"++corpus.sources={{{found[1]}: {inner}}}"  # merged into those before it
    if place.startswith(OPEN_ENDED) or OPEN_STAGE.match(place):
        return f"++{line.lstrip('+')}"
    return line
