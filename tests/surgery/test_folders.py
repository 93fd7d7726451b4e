"""Model folders that cannot be adapted, refused by their files alone."""

import json
from dataclasses import replace
from pathlib import Path

import families
import pytest
import safetensors
import torch
from errors import user_error
from safetensors.torch import load_file, save_file
from tiny import settings
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from hpc_llm.accounting.method import own_names
from hpc_llm.surgery.folders import check_base, linear_names
from hpc_llm.surgery.loading import load_model, load_tokenizer
from hpc_llm.surgery.trust import check_model_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny GPT-NeoX with its tokenizer."""
    families.tiny_model("gpt_neox").save_pretrained(tmp_path)
    families.tokenizer(families.ROWS, 0).save_pretrained(tmp_path)
    return tmp_path


def change(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_whole_folder_passes_and_its_layers_are_known(folder):
    shapes = check_base(str(folder))
    assert linear_names(shapes) == [
        "dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"
    ]  # fmt: skip


def test_targets_are_named_as_the_model_names_them(folder):
    known = linear_names(check_base(str(folder)))
    assert own_names(["qkv_proj", "dense"], known) == ["query_key_value", "dense"]
    with user_error("stages.lora.targets", "query_key_value", "dense_h_to_4h", value="[q_proj]"):
        own_names(["q_proj"], known, "stages.lora.targets")


@pytest.mark.parametrize("size", [0.5, 0.99, 0.0])
def test_weights_that_are_cut_off(folder, size):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * size)])
    with user_error(str(file)):
        check_base(str(folder))


def test_a_vocabulary_size_that_the_weights_do_not_have(folder):
    change(folder, vocab_size=families.ROWS + 8)
    with user_error("model.path", families.ROWS, families.ROWS + 8):
        check_base(str(folder))


def test_a_folder_without_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with user_error("model.path", "tokenizer.json"):
        check_base(str(folder))


def test_a_multimodal_model_is_refused(folder):
    change(folder, model_type="gemma3", text_config={"hidden_size": 8})
    with user_error("model.path", "gemma3", "text part"):
        check_base(str(folder))


def test_a_file_that_the_index_names_and_the_folder_lacks(folder):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with user_error(str(folder / "model-00001-of-00002.safetensors")):
        check_base(str(folder))


def test_weights_that_lack_a_tensor_are_not_filled_with_noise(folder):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = next(n for n in tensors if "query_key_value.weight" in n)
    del tensors[name]
    save_file(tensors, file, metadata={"format": "pt"})
    with user_error("model.path", name):
        load_model(folder, settings("experiment=example").model, "fp32")


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss", "llama", "mamba"])
def test_the_attention_is_what_the_class_supports(family, tmp_path):
    model = families.tiny_model(family)
    model.save_pretrained(tmp_path)
    cfg = settings("experiment=example").model
    assert cfg.attention == "auto"
    loaded = load_model(tmp_path, cfg, "fp32")
    wanted = "sdpa" if model._supports_sdpa else "eager"
    assert loaded.config._attn_implementation == wanted
    if not model._supports_sdpa:
        with user_error("model.attention", type(model).__name__, value="sdpa"):
            load_model(tmp_path, replace(cfg, attention="sdpa"), "fp32")


def test_experts_without_adapters_are_named_and_those_with_merge_exactly():
    from tiny import stage_of

    from hpc_llm.surgery.merge import merge_adapter
    from hpc_llm.surgery.trainable import make_trainable, not_adapted

    without = make_trainable(families.tiny_model("mixtral"), stage_of("lora"), False, 1)
    assert not_adapted(without) == ["down_proj", "gate_up_proj"]
    trainable = make_trainable(families.tiny_model("deepseek_v3"), stage_of("lora"), False, 1)
    assert not_adapted(trainable) == []
    for value in trainable.adapters.values():
        torch.nn.init.normal_(value, std=0.1)
    expected = families.logits(trainable.model)
    merged = merge_adapter(trainable.model, 1.0)
    torch.testing.assert_close(families.logits(merged), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 0),
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", -1),
        ("hidden_size", "32"),
    ],
)
def test_sizes_that_no_model_has(folder, key, value):
    change(folder, **{key: value})
    with user_error(f"config.json: {key}", value=value):
        check_base(str(folder))


def test_integers_are_no_weights(folder):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = next(n for n in tensors if "query_key_value.weight" in n)
    save_file(tensors | {name: tensors[name].to(torch.int8)}, file, metadata={"format": "pt"})
    with user_error(str(file), name, "I8"):
        check_base(str(folder))


def test_weights_without_a_place_are_named(folder, caplog):
    file = folder / "model.safetensors"
    more = {"gpt_neox.layers.7.extra.weight": torch.ones(2, 2)}
    save_file(load_file(file) | more, file, {"format": "pt"})
    with caplog.at_level("INFO", logger="hpc_llm"):
        load_model(folder, settings("experiment=example").model, "fp32")
    assert next(iter(more)) in caplog.text


def test_a_header_is_read_once_until_its_file_changes(folder, monkeypatch):
    opened = []

    def counted(file, *arguments, open_file=safetensors.safe_open):
        opened.append(Path(file).name)
        return open_file(file, *arguments)

    monkeypatch.setattr(safetensors, "safe_open", counted)
    for _ in range(2):
        check_model_files(str(folder), settings().model)
        shapes = check_base(str(folder))
    assert opened == ["model.safetensors"]
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"more": torch.zeros(3)}, folder / "model.safetensors")
    assert check_base(str(folder)) == shapes | {"more": (3,)}


@pytest.mark.parametrize(
    ("values", "mention"),
    [
        ({"hidden_act": "nope"}, "KeyError: 'nope'"),
        ({"num_attention_heads": 3}, "attention heads"),
    ],
)
def test_a_configuration_that_transformers_rejects_says_why(folder, values, mention):
    change(folder, **values)
    with user_error("model.path", mention, value=folder):
        load_model(folder, settings().model, "fp32")


def test_a_tokenizer_without_tokens_is_refused(folder):
    for file in folder.glob("*token*"):
        file.unlink()
    empty = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    empty.save_pretrained(folder)
    with user_error("model.path", "no tokens", value=folder):
        load_tokenizer(folder, settings().model)
