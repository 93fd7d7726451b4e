"""Trainable parameters, and the merged model."""

from dataclasses import replace

import pytest
import torch
from errors import user_error
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from hpc_llm import config
from hpc_llm.surgery.merge import merge_adapter
from hpc_llm.surgery.trainable import make_trainable


def llama(tied=True):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        vocab_size=40, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM(config)


EMBEDDINGS = {"model.embed_tokens.weight", "lm_head.weight"}


@pytest.mark.parametrize("tied", [True, False])
def test_methods_train_what_they_say(tied):
    ends = {"model.embed_tokens.weight"} if tied else EMBEDDINGS
    model = llama(tied)
    everything = {name for name, _ in model.named_parameters()}
    expected = {
        "full": everything,
        "embeddings": ends,
        "head": ends if tied else {"lm_head.weight"},
    }
    for method, names in expected.items():
        words = ["experiment=example", f"+method@stages.mine={method}"]
        stage = config.typed(config.compose(words)).stages["mine"]
        found = make_trainable(llama(tied), stage, False, seed=1)
        assert set(found.weights) == names
        assert not found.adapters
        trainable = {n for n, p in found.model.named_parameters() if p.requires_grad}
        assert trainable == names


@pytest.mark.parametrize("ends", [True, False])
def test_lora_trains_adapters_and_perhaps_embeddings(default_config, ends):
    stage = replace(default_config.stages["lora"], train_embeddings=ends)
    found = make_trainable(llama(False), stage, False, seed=1)
    assert set(found.embeddings) == (EMBEDDINGS if ends else set())
    assert len(found.adapters) == 2 * 2 * 7
    assert not found.body
    trainable = {id(p) for p in found.model.parameters() if p.requires_grad}
    assert trainable == {id(p) for p in found.parameters.values()}


def test_an_unknown_target_is_refused(default_config):
    stage = replace(default_config.stages["lora"], targets=["q_proj", "query"])
    with user_error("targets", "down_proj, gate_proj", value="[query]"):
        make_trainable(llama(), stage, False, seed=1)


@pytest.mark.parametrize("tied", [True, False])
def test_the_merged_model_reloads_with_the_same_logits(default_config, tied, tmp_path):
    base = llama(tied)
    plain = {name: p.detach().clone() for name, p in base.named_parameters()}
    found = make_trainable(base, default_config.stages["lora"], False, seed=1)
    for name, parameter in found.adapters.items():
        torch.nn.init.normal_(parameter, std=0.1)
        plain[name] = parameter.detach().clone()
    merged = merge_adapter(found.model, 0.5)
    q = "model.layers.1.self_attn.q_proj"
    a, b = (plain[f"base_model.model.{q}.lora_{x}.default.weight"] for x in "AB")
    scale = default_config.stages["lora"].alpha / default_config.stages["lora"].rank
    expected = plain[f"{q}.weight"] + 0.5 * scale * b @ a
    torch.testing.assert_close(merged.get_parameter(f"{q}.weight").detach(), expected)
    merged.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.arange(20)[None]
    assert torch.equal(again(ids).logits, merged.eval()(ids).logits)
    assert again.config.tie_word_embeddings == tied
