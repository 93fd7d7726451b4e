"""`train.compile`: the same training, resumed with the same bits, or refused."""

from dataclasses import replace

import pytest
import torch
from errors import user_error
from start_ranks import run
from transformers import LlamaConfig, LlamaForCausalLM

from hpc_llm.training.kernels.compiling import compile_layers


def test_a_compiled_stage_resumes_with_the_same_bits(tmp_path):
    variants = {"full": {"method": "full"}, "lora": {"method": "lora", "zero": 2}}
    compiled = [{**v, "folder": tmp_path / name, "compile": True} for name, v in variants.items()]
    cut = [{**task, "folder": f"{task['folder']}-cut"} for task in compiled]
    plain = [{**v, "folder": tmp_path / f"{name}-plain"} for name, v in variants.items()]
    results = run([*compiled, *({**task, "stop_at": 4} for task in cut), *plain])
    for one, other in zip(results[:2], results[4:], strict=True):
        assert one["losses"] == pytest.approx(other["losses"], abs=1e-5)
    for one, again in zip(results[:2], run(cut), strict=True):
        assert again["hash"] == one["hash"]


def test_names_stay_as_they_are():
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
        vocab_size=40,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    before = list(model.state_dict())
    assert compile_layers(model) == 3
    assert list(model.state_dict()) == before
    with user_error("train.compile", "Linear"):
        compile_layers(torch.nn.Linear(2, 2))


def test_what_would_not_stay_compiled_is_refused(default_config):
    train = replace(default_config.train, compile=True)
    with user_error("train.compile", "zero.stage=2"):
        replace(default_config, train=train, zero=replace(default_config.zero, stage=3))
    for change in (
        {"batching": "grouped"},
        {"sequence_warmup": replace(train.sequence_warmup, start=64)},
        {"batch_warmup": replace(train.batch_warmup, start=512)},
    ):
        with user_error("train.compile", "train."):
            replace(train, **change)
