"""Sizes of a model from a `config.json`: valid, invalid, and keys of the command line."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from errors import user_error

from hpc_llm.accounting import Architecture, context_length
from hpc_llm.accounting.config_keys import PLAIN, keys_read
from hpc_llm.accounting.families import FAMILIES, fields_from_config
from hpc_llm.accounting.hardware import read_catalogue
from hpc_llm.config import compose, typed
from hpc_llm.planning import make_plan, render_plan

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 2048,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "intermediate_size": 5632,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}


def folder_of(tmp_path: Path, config: object) -> str:
    data = config if isinstance(config, bytes) else json.dumps(config).encode()
    (tmp_path / "config.json").write_bytes(data)
    return f"model.path={tmp_path}"


def plan(*overrides: str):
    return make_plan(typed(compose(["cluster=a100_4x8", *overrides])))


@pytest.mark.parametrize(
    ("content", "mention"),
    [
        (b"{broken", "line 1"),
        (b"", "line 1"),
        (b"\xff\xfe\x00{", "UTF-8"),
        ([LLAMA], "object"),
    ],
    ids=str,
)
def test_a_file_that_is_no_json_object_is_refused(
    tmp_path: Path, content: object, mention: str
) -> None:
    folder = folder_of(tmp_path, content)
    with user_error(str(tmp_path / "config.json"), mention, "model.architecture"):
        plan(folder)


INVALID = [  # change, key, value, mention
    ({"max_position_embeddings": "4k"}, "max_position_embeddings", "4k", "integer"),
    ({"hidden_size": 2048.5}, "hidden_size", 2048.5, "integer"),
    ({"num_hidden_layers": True}, "num_hidden_layers", True, "integer"),
    ({"tie_word_embeddings": "false"}, "tie_word_embeddings", "false", "true or false"),
    ({"num_attention_heads": 30}, "hidden_size", 2048, "num_attention_heads=30"),
    ({"num_key_value_heads": 3}, "num_key_value_heads", 3, "num_attention_heads=32"),
    ({"model_type": "gpt2", "resid_pdrop": "0.1"}, "resid_pdrop", "0.1", "number"),
]


@pytest.mark.parametrize(("change", "key", "value", "mention"), INVALID, ids=str)
def test_an_invalid_value_is_refused(
    tmp_path: Path, change: dict[str, Any], key: str, value: object, mention: str
) -> None:
    folder = folder_of(tmp_path, LLAMA | change)
    with user_error(f"config.json: {key}", mention, value=value):
        plan(folder)


def test_a_missing_size_and_an_unknown_family_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, LLAMA | {"num_hidden_layers": None})
    with user_error("config.json", "num_hidden_layers", "model_type=llama"):
        plan(folder)
    folder = folder_of(tmp_path, LLAMA | {"model_type": ["llama"]})
    with user_error("model_type", "llama, ", value="['llama']"):
        plan(folder)


@pytest.mark.parametrize(
    ("override", "mention"),
    [
        ("num_hidden_layer=96", "num_hidden_layers?"),
        ("num_layers=96", "num_hidden_layers?"),
        ("foo=3", "num_hidden_layers, "),
    ],
)
def test_a_key_that_the_family_does_not_have_is_refused(override: str, mention: str) -> None:
    key = override.partition("=")[0]
    with user_error(f"model.architecture.{key}", "llama", mention):
        plan("model=solar-10.7b", f"model.architecture.{override}")


def test_keys_that_change_no_size_are_taken() -> None:
    result = plan("model=solar-10.7b", "model.architecture.rms_norm_eps=1e-6")
    assert result.parameters == plan("model=solar-10.7b").parameters


@pytest.mark.parametrize("name", FAMILIES)
def test_every_key_of_a_real_configuration_is_known(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.CONFIG_MAPPING[name]()
    known = PLAIN | keys_read(fields_from_config, config.to_dict()) | set(config.attribute_map)
    assert {key for key in config.to_dict() if not key.startswith("_")} <= known


def test_the_catalogue_has_no_unknown_key() -> None:
    for name, entry in read_catalogue("model").items():
        if entry["architecture"]:
            read = keys_read(fields_from_config, entry["architecture"])
            assert set(entry["architecture"]) <= PLAIN | read, name


def test_the_folder_that_is_trained_is_the_one_that_is_planned(tmp_path: Path) -> None:
    result = plan("model=solar-10.7b", folder_of(tmp_path, LLAMA))
    assert result.parameters.total < 2e9
    assert "num_hidden_layers" in result.warnings[0]
    assert "num_hidden_layers" in render_plan(result).splitlines()[0]
    same = read_catalogue("model")["solar-10.7b"]["architecture"]
    assert plan("model=solar-10.7b", folder_of(tmp_path, same)).warnings == []


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    result = plan("model=solar-10.7b", f"model.path={tmp_path}/1B")
    assert f"model.path={tmp_path}/1B: " in result.warnings[0]
    assert "model.architecture" in result.warnings[0]
    assert plan("model=solar-10.7b").warnings == []  # a hub id


def test_a_missing_key_is_reported_with_the_one_that_looks_like_it() -> None:
    wrong = {key: value for key, value in LLAMA.items() if key != "num_hidden_layers"}
    with user_error("config.json", "num_hidden_layers", "num_hidden_layer)"):
        Architecture.from_config(wrong | {"num_hidden_layer": 22})


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (LLAMA, 4096),
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({"model_type": "roberta", "max_position_embeddings": 514}, 512),
        ({"model_type": "gemma3", "text_config": LLAMA}, 4096),
        ({"model_type": "bloom"}, None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_context_length_is_that_of_the_text_model(
    config: dict[str, Any], tokens: int | None
) -> None:
    assert context_length(config) == tokens


def test_sizes_of_a_loaded_model_are_those_of_its_file() -> None:
    config = transformers.AutoConfig.for_model(**LLAMA, head_dim=64)
    read = Architecture.from_config(LLAMA | {"head_dim": 64})
    assert Architecture.of(SimpleNamespace(config=config)) == read
    assert context_length(config.to_dict()) == 4096
