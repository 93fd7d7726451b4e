"""Model folders that would run code: refused in one line, before anything is loaded."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from errors import user_error
from safetensors.numpy import save_file
from tiny import settings
from transformers import LlamaConfig, LlamaForCausalLM

from hpc_llm.app.main import main
from hpc_llm.surgery.loading import load_model
from hpc_llm.surgery.trust import check_model_files

SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 32}
CONFIG = {"model_type": "llama", "num_attention_heads": 2, "num_key_value_heads": 2, **SIZES}
OFF = replace(settings("experiment=example").model, trust_remote_code=False)
ON = replace(OFF, trust_remote_code=True)


def write(folder: Path, name: str, value: object) -> Path:
    (folder / name).write_text(json.dumps(value))
    return folder / name


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder with nothing in it but data."""
    write(tmp_path, "config.json", CONFIG)
    save_file({"a": np.zeros(4, np.float32)}, tmp_path / "model.safetensors")
    check_model_files(str(tmp_path), OFF)
    return tmp_path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_attn_implementation", "kernels-community/flash-attn"),
        ("attn_implementation", "owner/kernel@main:function"),
        ("_attn_implementation_internal", "owner/kernel"),
        ("attn_implementation", "paged|owner/kernel"),
        ("attn_implementation", {"": "sdpa", "text_config": "owner/kernel"}),
        ("attn_implementation", ["owner/kernel"]),
        ("_experts_implementation", "owner/kernel"),
        ("experts_implementation", "sonicmoe"),
        ("quantization_config", {"quant_method": "mxfp4"}),
        ("quantization_config", {"quant_method": "fp8"}),
        ("compression_config", {"quant_method": "compressed-tensors"}),
    ],
)
@pytest.mark.parametrize("place", ["top", "nested"])
def test_a_key_that_fetches_code(model: Path, key: str, value: object, place: str) -> None:
    inner = {key: value}
    added = inner if place == "top" else {"text_config": {"layers": [inner]}}
    file = write(model, "config.json", {**CONFIG, **added})
    with user_error(f"{file}: {key}"):
        check_model_files(str(model), OFF)
    check_model_files(str(model), ON)


@pytest.mark.parametrize("value", [None, "eager", "sdpa", {"": "eager"}])
def test_a_plain_attention_is_replaced_by_the_setting(tmp_path: Path, value: object) -> None:
    LlamaForCausalLM(
        LlamaConfig(**{k: v for k, v in CONFIG.items() if k != "model_type"})
    ).save_pretrained(tmp_path)
    given = json.loads((tmp_path / "config.json").read_text())
    keys = ("_attn_implementation", "attn_implementation")
    write(tmp_path, "config.json", given | dict.fromkeys(keys, value))
    for setting in ("sdpa", "eager"):
        found = load_model(tmp_path, replace(OFF, attention=setting), "fp32")
        assert found.config._attn_implementation == setting
        assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("penalty_alpha", 0.6),
        ("dola_layers", "high"),
        ("num_beam_groups", 2),
        ("custom_generate", "owner/name"),
    ],
)
def test_generation_by_code_of_the_hub(model: Path, key: str, value: object) -> None:
    file = write(model, "generation_config.json", {"eos_token_id": 2, key: value})
    with user_error(f"{file}: {key}", value=value):
        check_model_files(str(model), OFF)
    write(model, "generation_config.json", {"num_beam_groups": 1, "penalty_alpha": None})
    check_model_files(str(model), OFF)


AUTO_MAP = {"AutoConfig": "configuration_x.XConfig", "AutoModelForCausalLM": "modeling_x.X"}


@pytest.mark.parametrize(
    ("file", "named", "read"),
    [
        ("config.json", AUTO_MAP, ["configuration_x.py", "modeling_x.py"]),
        (
            "config.json",
            {"AutoConfig": "owner/name--conf.X"},
            ["https://huggingface.co/owner/name"],
        ),
        ("tokenizer_config.json", {"AutoTokenizer": ["tok.Slow", None]}, ["tok.py"]),
        ("tokenizer_config.json", ["tok.Slow", "fast.Fast"], ["tok.py", "fast.py"]),
    ],
)
def test_shipped_code_is_refused_and_named(model: Path, file: str, named, read: list[str]) -> None:
    config = {**CONFIG, "model_type": "unknown_x"}
    write(model, "config.json", config)
    write(model, file, (config if file == "config.json" else {}) | {"auto_map": named})
    with user_error("model.path", "model.trust_remote_code=true", *read, value=model):
        check_model_files(str(model), OFF)
    check_model_files(str(model), ON)
    write(model, "config.json", {**CONFIG, "auto_map": AUTO_MAP})  # transformers has its own code
    check_model_files(str(model), OFF)


def test_it_is_refused_before_the_first_stage(model: Path, tmp_path: Path, capsys) -> None:
    write(model, "config.json", {**CONFIG, "model_type": "unknown_x", "auto_map": AUTO_MAP})
    runs = tmp_path / "runs"
    words = [f"model.path={model}", "corpus.target=sample:ru", "corpus.source=sample:en"]
    assert main(["adapt", *words, f"runs_dir={runs}"]) == 2
    line = capsys.readouterr().err
    assert "modeling_x.py" in line
    assert "model.trust_remote_code=true" in line
    assert not runs.exists()


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('harmed')",)


def damage_pickle(file: Path) -> None:
    file.write_bytes(pickle.dumps(Harmful()))


def damage_zip(file: Path) -> None:
    torch.save({"a": torch.zeros(2)}, file)


def damage_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4])


def damage_header(file: Path) -> None:
    file.write_bytes((2**60).to_bytes(8, "little") + b"{}")


@pytest.mark.parametrize("trust", [OFF, ON], ids=["off", "on"])
@pytest.mark.parametrize(
    "damage",
    [damage_pickle, damage_zip, damage_half, damage_header, Path.touch],
    ids=lambda damage: damage.__name__,
)
def test_a_file_that_is_no_safetensors(model: Path, damage, trust) -> None:
    file = model / "model.safetensors"
    if damage is Path.touch:
        file.unlink()
    damage(file)
    with user_error(str(file)):
        check_model_files(str(model), trust)
    with user_error(str(file)):
        load_model(model, trust, "fp32")


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "../other.safetensors", "/x/y.safetensors", "a\n.safetensors", 7]
)
def test_an_index_names_safetensors_of_its_folder_only(model: Path, name: object) -> None:
    index = write(model, "model.safetensors.index.json", {"weight_map": {"a": name}})
    with user_error(str(index)):
        check_model_files(str(model), ON)
    index.unlink()
    config = write(model, "config.json", {**CONFIG, "transformers_weights": name})
    with user_error(str(config)):
        check_model_files(str(model), OFF)


def test_an_adapter_beside_the_model(model: Path) -> None:
    file = write(model, "adapter_config.json", {"base_model_name_or_path": "owner/name"})
    with user_error(str(file)):
        check_model_files(str(model), OFF)


BOMBS = {
    "deep": "[" * 200_000,
    "deep objects": '{"a":' * 100_000,
    "digits": '{"a": ' + "9" * 10_000 + "}",
    "a list": "[]",
    "no JSON": "{",
    "no text": "\udcff",
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_json_that_is_not_to_be_read(model: Path, bomb: str, name: str) -> None:
    (model / name).write_text(BOMBS[bomb], errors="surrogateescape")
    with user_error(str(model / name)):
        check_model_files(str(model), OFF)


def test_json_that_is_too_large(model: Path) -> None:
    with (model / "config.json").open("r+b") as file:
        file.truncate(2**40)  # takes no space
    with user_error(str(model / "config.json"), f"{2**40:,}"):
        check_model_files(str(model), OFF)


def test_a_name_of_the_hub_that_is_not_in_the_cache_is_left_for_later(
    monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    check_model_files("owner/name", OFF)


def test_a_header_whose_length_begins_like_a_pickle_is_no_pickle(tmp_path):
    """The file begins with the length of its header, here 0x80."""
    import torch
    from safetensors.torch import save_file

    from hpc_llm.surgery.headers import tensors_of

    for width in range(0, 200, 8):
        file = tmp_path / f"{width}.safetensors"
        save_file({"w" * (width + 1): torch.zeros(1)}, file)
        if file.read_bytes()[0] == 0x80:
            break
    assert file.read_bytes()[0] == 0x80
    tensors_of(file)
