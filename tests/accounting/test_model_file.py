"""The sizes of a model as somebody may give them: a whole file, a broken one, keys by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from hpc_llm.accounting import Architecture
from hpc_llm.accounting.config_keys import PLAIN, keys_read
from hpc_llm.accounting.families import FAMILIES, fields_from_config
from hpc_llm.accounting.hardware import read_catalogue
from hpc_llm.config import compose, typed
from hpc_llm.errors import UserError
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


REFUSED = [
    (b"{broken", "no JSON"),
    (b"", "no JSON"),
    (b"\xff\xfe\x00{", "UTF-8"),
    ([LLAMA], "must hold one object"),
    (LLAMA | {"max_position_embeddings": "4k"}, "max_position_embeddings=4k: must be a whole"),
    (LLAMA | {"hidden_size": 2048.5}, "hidden_size=2048.5: must be a whole"),
    (LLAMA | {"num_hidden_layers": True}, "num_hidden_layers=True: must be a whole"),
    (LLAMA | {"tie_word_embeddings": "false"}, "tie_word_embeddings=false: must be true or"),
    (LLAMA | {"num_attention_heads": 30}, "must be a multiple of num_attention_heads=30"),
    (LLAMA | {"num_key_value_heads": 3}, "num_key_value_heads=3: must divide"),
    (LLAMA | {"num_hidden_layers": None}, "num_hidden_layers is missing"),
    (LLAMA | {"model_type": ["llama"]}, "family is not known"),
    ({"model_type": "gpt2", "resid_pdrop": "0.1"}, "resid_pdrop=0.1: must be a number"),
]


@pytest.mark.parametrize(("config", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_a_file_that_cannot_be_is_refused_in_one_line(
    tmp_path: Path, config: object, told: str
) -> None:
    with pytest.raises(UserError) as refused:
        plan(folder_of(tmp_path, config))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("num_hidden_layer=96", "did you mean num_hidden_layers"),
        ("num_layers=96", "did you mean num_hidden_layers"),
        ("foo=3", "model.architecture.foo: llama has no such key"),
    ],
)
def test_a_key_that_the_family_does_not_have_is_refused(override: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
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


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    result = plan("model=solar-10.7b", f"model.path={tmp_path}/1B")
    assert "is no folder here" in result.warnings[0]
    assert plan("model=solar-10.7b").warnings == []  # a hub id


def test_a_missing_key_is_told_beside_the_one_that_looks_like_it(tmp_path: Path) -> None:
    wrong = {key: value for key, value in LLAMA.items() if key != "num_hidden_layers"}
    with pytest.raises(UserError, match=r"num_hidden_layers is missing.*num_hidden_layer stands"):
        Architecture.from_config(wrong | {"num_hidden_layer": 22})
