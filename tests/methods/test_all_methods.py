"""What every training method keeps, run over all files of `hpc_llm/methods/`."""

import ast
import copy
import importlib
import inspect
from dataclasses import fields

import pytest
import torch
import yaml
from errors import user_error
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny import stage_of
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from hpc_llm.accounting import Architecture, stage_method, step_flops, trainable_parameters
from hpc_llm.methods import describe, method_names
from hpc_llm.rundir import conf_dir
from hpc_llm.surgery.loading import apply_weights
from hpc_llm.surgery.merge import attach_adapter, merge_adapter
from hpc_llm.surgery.trainable import make_trainable

NEW_ROWS = [3, 17, 50]
IDS = torch.tensor([[1, 7, 21, 3, 44, 9, 60, 5], [2, 2, 17, 50, 33, 8, 0, 4]])


def llama(tied=False):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=64, max_position_embeddings=64, tie_word_embeddings=tied,
        attn_implementation="eager",
    )  # fmt: skip
    return LlamaForCausalLM(config)


def trainable(method, model, recompute=False):
    return make_trainable(model.train(), stage_of(method), recompute, 1, NEW_ROWS)


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=IDS).logits


def step(found):
    """Take one optimizer step that moves what trains."""
    found.model.train()
    optimizer = torch.optim.SGD(found.parameters.values(), lr=0.5)
    for _ in range(2):  # the factors B of adapters are 0 before the first
        found.model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("method", method_names())
def test_it_trains_as_many_parameters_as_are_counted(method, tied):
    found = trainable(method, llama(tied))
    arch = Architecture.from_config(found.causal.config.to_dict())
    counted = trainable_parameters(arch, stage_method(stage_of(method)))
    assert counted == sum(parameter.numel() for parameter in found.parameters.values())
    flags = [p for p in found.model.parameters() if p.requires_grad]
    assert {id(p) for p in flags} == {id(p) for p in found.parameters.values()}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("method", method_names())
def test_its_flops_are_those_of_the_counter(method, recompute):
    found = trainable(method, llama(), recompute)
    arch = Architecture.from_config(found.causal.config.to_dict())
    counted = stage_method(stage_of(method), recompute=recompute)
    with FlopCounterMode(display=False) as counter:
        found.model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    assert step_flops(arch, counted, *IDS.shape).total == counter.get_total_flops()


@pytest.mark.parametrize("method", method_names())
def test_it_starts_at_the_base_and_leaves_all_else_as_it_was(method):
    base = llama()
    expected = logits(base)
    found = trainable(method, copy.deepcopy(base))
    assert torch.equal(logits(found.model), expected)
    step(found)
    assert not torch.equal(logits(found.model), expected)
    frozen = {n: p for n, p in found.model.named_parameters() if not p.requires_grad}
    before = {id(p): n for n, p in base.named_parameters()}
    plain = dict(base.named_parameters())
    for name, parameter in frozen.items():
        own = name.removeprefix("base_model.model.").replace(".base_layer", "")
        assert torch.equal(parameter, plain[own]), name
    assert len(before) == len(plain)
    if found.frozen_rows is not None:
        for name, parameter in found.embeddings.items():
            moved = (parameter != plain[name]).any(1).nonzero()[:, 0].tolist()
            assert set(moved) <= set(NEW_ROWS)


@pytest.mark.parametrize("method", method_names())
def test_what_it_leaves_is_loaded_again_and_merged_or_refused(method, tmp_path):
    found = trainable(method, llama())
    step(found)
    expected = logits(found.model)
    save_file({n: p.detach() for n, p in found.weights.items()}, tmp_path / "weights.safetensors")
    if isinstance(found.model, PeftModel):
        found.model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    again = llama()
    apply_weights(again, [tmp_path])
    assert set(load_file(tmp_path / "weights.safetensors")) == set(found.weights)
    if not isinstance(found.model, PeftModel):
        assert torch.equal(logits(again), expected)
        return
    again = attach_adapter(again, tmp_path / "adapter")
    torch.testing.assert_close(logits(again), expected, atol=1e-6, rtol=1e-6)
    if describe(method).merges == "exact":
        merged = merge_adapter(again, 1.0)
        torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)
    else:
        with user_error("adapter"):
            merge_adapter(again, 1.0)


@pytest.mark.parametrize("method", method_names())
def test_every_setting_has_its_value_in_conf(method):
    values = yaml.safe_load((conf_dir() / "method" / f"{method}.yaml").read_text())
    names = [field.name for field in fields(describe(method).settings)]
    assert sorted(values) == sorted("from" if name == "from_stage" else name for name in names)
    assert values["method"] == method


@pytest.mark.parametrize("method", method_names())
def test_every_setting_is_documented(method):
    for settings in describe(method).settings.__mro__[:-1]:
        module = importlib.import_module(settings.__module__)
        (body,) = (
            node.body
            for node in ast.parse(inspect.getsource(module)).body
            if isinstance(node, ast.ClassDef) and node.name == settings.__name__
        )
        for place, node in enumerate(body):
            if isinstance(node, ast.AnnAssign):
                after = body[place + 1]
                assert isinstance(after, ast.Expr), node.target.id
                assert isinstance(after.value.value, str), node.target.id
