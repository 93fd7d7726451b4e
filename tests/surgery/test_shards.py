"""Shards of weights: the bytes are those of the libraries, and they are read back by name."""

import json

import pytest
import torch
from errors import user_error
from live_bytes import LiveBytes
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from hpc_llm.surgery.shards import (
    StoredWeights,
    split_weights,
    weight_files,
    write_shards,
)

TYPES = (
    *(torch.float32, torch.bfloat16, torch.float16, torch.float64),
    *(torch.int64, torch.int32, torch.uint8, torch.bool),
)


def mixed():
    """Return tensors of all types and shapes, with names in no order."""
    torch.manual_seed(0)
    found = {f"{9 - i}.я": (torch.randn(i + 1, 3) * 9).to(t) for i, t in enumerate(TYPES)}
    return {**found, "scalar": torch.tensor(3.0), "none": torch.empty(0, 4), "a.b": torch.ones(5)}


def test_a_file_has_the_bytes_of_the_library(tmp_path):
    tensors = mixed()
    write_shards(tmp_path, "weights", tensors, tensors.__getitem__)
    save_file(tensors, tmp_path / "by_library.safetensors", metadata={"format": "pt"})
    written = (tmp_path / "weights.safetensors").read_bytes()
    assert written == (tmp_path / "by_library.safetensors").read_bytes()


@pytest.mark.parametrize("most_bytes", [1, 60, 10**9])
def test_shards_are_read_back_by_name(tmp_path, most_bytes):
    tensors = mixed()
    write_shards(tmp_path, "weights", tensors, tensors.__getitem__, most_bytes)
    assert len(weight_files(tmp_path, "weights")) == {1: 12, 60: 7, 10**9: 1}[most_bytes]
    stored = StoredWeights(tmp_path)
    assert set(stored) == set(tensors)
    for name, tensor in tensors.items():
        assert stored[name].dtype == stored.empty(name).dtype == tensor.dtype
        assert torch.equal(stored[name], tensor)
        assert stored.empty(name).shape == tensor.shape


def test_no_tensors_are_a_file_too(tmp_path):
    write_shards(tmp_path, "weights", {}, {}.__getitem__)
    assert load_file(tmp_path / "weights.safetensors") == {}
    assert dict(StoredWeights(tmp_path)) == {}


def test_a_model_is_divided_as_by_transformers(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, vocab_size=64, **sizes))
    model.save_pretrained(tmp_path / "theirs", max_shard_size=5000)
    model.config.save_pretrained(tmp_path / "ours")
    weights = model.state_dict()
    write_shards(tmp_path / "ours", "model", weights, weights.__getitem__, 5000)
    names = sorted(path.name for path in weight_files(tmp_path / "theirs", "model"))
    assert sorted(path.name for path in weight_files(tmp_path / "ours", "model")) == names
    assert len(names) > 3
    for name in names:
        ours, theirs = ((tmp_path / folder / name).read_bytes() for folder in ("ours", "theirs"))
        if name.endswith(".json"):
            ours, theirs = (json.loads(text)["weight_map"] for text in (ours, theirs))
        assert ours == theirs, name
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").state_dict()
    assert all(torch.equal(again[name], value) for name, value in weights.items())


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    shapes = {str(i): torch.empty(1000, device="meta") for i in range(20)}
    with LiveBytes() as live:
        write_shards(tmp_path, "weights", shapes, lambda name: torch.full((1000,), float(name)))
    assert live.peak == 4000


def test_a_damaged_index_and_a_missing_file_are_one_line(tmp_path):
    tensors = {"a": torch.ones(3), "b": torch.ones(3)}
    write_shards(tmp_path, "weights", tensors, tensors.__getitem__, 12)
    second = tmp_path / split_weights(tensors, "weights", 12).tensor_to_filename["b"]
    second.write_bytes(second.read_bytes()[:-1])
    with user_error(str(second), "damaged"):
        StoredWeights(tmp_path)["b"]
    (tmp_path / "weights.safetensors.index.json").write_text("{}")
    with user_error(str(tmp_path / "weights.safetensors.index.json")):
        StoredWeights(tmp_path)
