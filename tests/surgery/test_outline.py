"""Transplant and merge from file to file: the same files as from the loaded model."""

import families
import pytest
import torch
from live_bytes import LiveBytes
from safetensors.torch import load_file, save_file
from tiny import settings, stage_of
from transformers import LlamaConfig, LlamaForCausalLM

from hpc_llm.surgery.loading import DTYPES, apply_weights, load_model
from hpc_llm.surgery.merge import attach_adapter, merge_adapter, save_adapter, save_model
from hpc_llm.surgery.merged import Change, merged_tensors, save_merged
from hpc_llm.surgery.outline import NotStreamed, open_outline
from hpc_llm.surgery.shards import StoredWeights
from hpc_llm.surgery.trainable import make_trainable
from hpc_llm.vocabulary.transplant import transplant

MEAN = settings().transplant
MODEL = settings("experiment=example").model
STREAMED = ("llama", "qwen2", "gpt2", "gptj", "opt", "mixtral", "mamba", "hy_v4", "laguna")
"""Untied, tied, a bias at the head, stacked experts, weights kept in fp32, renamed layers."""


def same_files(one, other):
    """Return the files of two model folders that differ in a byte."""
    names = {path.name for folder in (one, other) for path in folder.iterdir()}
    return sorted(n for n in names if (one / n).read_bytes() != (other / n).read_bytes())


def base_of(family, folder, dtype):
    """Write a tiny base model into `folder`."""
    families.tiny_model(family).to(dtype).save_pretrained(folder)
    families.tokenizer(families.ROWS, 0).save_pretrained(folder)


def without_seconds(done):
    """Return what `transplant` returned, without the time that each side took."""
    for side in (done[0]["input"], done[0]["output"]):
        if side is not None:
            assert side.pop("seconds") >= 0
    return done


def transplanted(folder, precision):
    """Transplant the base in `folder` both ways; return whether the files are the same."""
    old, new = families.tokenizer(families.ROWS, 0), families.tokenizer(families.NEW_ROWS, 5)
    whole = load_model(folder / "base", MODEL, precision)
    expected = without_seconds(transplant(whole, old, new, MEAN, 1))
    save_model(whole, new, folder / "whole", DTYPES[precision])
    outline = open_outline(folder / "base", MODEL, precision)
    outline.load_ends()
    assert without_seconds(transplant(outline.model, old, new, MEAN, 1)) == expected
    (folder / "streamed").mkdir()
    outline.save(new, folder / "streamed")
    return same_files(folder / "whole", folder / "streamed")


def stage_result(model, folder):
    """Leave in `folder` what a LoRA stage leaves; return the number of adapted weights."""
    trainable = make_trainable(model, stage_of("lora", rank=2), False, seed=1)
    for value in trainable.adapters.values():
        torch.nn.init.normal_(value, std=0.1)
    weights = {name: value.detach() + 1 for name, value in trainable.embeddings.items()}
    save_file(weights, folder / "weights.safetensors")
    adapters = {name: value.detach() for name, value in trainable.adapters.items()}
    save_adapter(trainable.model, folder / "adapter", adapters, weights, None)


def merged(folder, precision, phi):
    """Merge two stages on the model in `folder` both ways; return whether the files are same."""
    new = families.tokenizer(families.NEW_ROWS, 5)
    stages = [folder / "first", folder / "second"]
    for stage in stages:
        stage.mkdir()
        stage_result(load_model(folder / "whole", MODEL, precision), stage)
    whole = load_model(folder / "whole", MODEL, precision)
    for stage, factor in zip(stages, (1.0, phi), strict=True):
        apply_weights(whole, [stage])
        whole = merge_adapter(attach_adapter(whole, stage / "adapter"), factor)
    save_model(whole, new, folder / "merged", DTYPES[precision])
    changes = [
        Change(StoredWeights(stage), stage / "adapter", factor)
        for stage, factor in zip(stages, (1.0, phi), strict=True)
    ]
    (folder / "written").mkdir()
    save_merged(open_outline(folder / "whole", MODEL, precision), changes, new, folder / "written")
    return same_files(folder / "merged", folder / "written")


@pytest.mark.parametrize(("number", "family"), enumerate(STREAMED))
def test_the_files_are_those_of_the_loaded_model(number, family, tmp_path):
    before, after = (torch.float32, "bf16") if number % 2 else (torch.bfloat16, "fp32")
    base_of(family, tmp_path / "base", before)
    assert transplanted(tmp_path, after) == []
    assert merged(tmp_path, after, 0.7) == []


def test_tensors_without_a_place_are_left_out(tmp_path):
    base_of("llama", tmp_path / "base", torch.bfloat16)
    file = tmp_path / "base/model.safetensors"
    unused = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(load_file(file) | unused, file, metadata={"format": "pt"})
    assert transplanted(tmp_path, "bf16") == []


def test_a_head_that_may_be_tied_is_loaded(tmp_path):
    base_of("gpt2", tmp_path / "base", torch.float32)
    file = tmp_path / "base/model.safetensors"
    weights = load_file(file)
    head = {"lm_head.weight": weights["transformer.wte.weight"].clone()}
    save_file(weights | head, file, metadata={"format": "pt"})
    with pytest.raises(NotStreamed, match="tied"):
        open_outline(tmp_path / "base", MODEL, "fp32")


def test_other_names_in_the_files_are_loaded(tmp_path):
    base_of("gpt2", tmp_path / "base", torch.float32)
    file = tmp_path / "base/model.safetensors"
    weights = load_file(file)
    short = {name.removeprefix("transformer."): value for name, value in weights.items()}
    save_file(short, file, metadata={"format": "pt"})
    with pytest.raises(NotStreamed, match="transformer"):
        open_outline(tmp_path / "base", MODEL, "fp32")


def test_another_table_of_the_vocabulary_is_loaded_before_anything_is_written(tmp_path):
    base_of("data2vec-text", tmp_path / "base", torch.float32)
    with pytest.raises(NotStreamed, match=r"lm_head\.bias"):
        transplanted(tmp_path, "fp32")
    assert list((tmp_path / "streamed").iterdir()) == []


def test_two_tensors_are_in_memory_at_a_time(tmp_path):
    sizes = {"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 2}
    config = LlamaConfig(num_hidden_layers=12, vocab_size=families.ROWS, **sizes)
    LlamaForCausalLM(config).bfloat16().save_pretrained(tmp_path / "whole", max_shard_size=1)
    (tmp_path / "stage").mkdir()
    stage_result(load_model(tmp_path / "whole", MODEL, "fp32"), tmp_path / "stage")
    outline = open_outline(tmp_path / "whole", MODEL, "fp32")
    change = Change(StoredWeights(tmp_path / "stage"), tmp_path / "stage/adapter", 0.5)
    tensor_of = merged_tensors(outline, [change])
    largest = 4 * 64 * 192
    with LiveBytes() as live:
        for name in outline.stored:
            tensor_of(name)
    factors = sum(
        p.numel() * 4
        for p in load_file(tmp_path / "stage/adapter/adapter_model.safetensors").values()
    )
    mapped = sum(file.stat().st_size for file in (tmp_path / "whole").glob("*.safetensors"))
    assert live.peak - mapped <= factors + 4 * largest
