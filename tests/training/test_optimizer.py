"""What learns at which rate, what decays, and rows that stay as they are."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from errors import user_error
from start_ranks import run
from tiny import stage_of
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from hpc_llm import config
from hpc_llm.surgery.trainable import make_trainable
from hpc_llm.training.optimizer import build_optimizer, parameter_groups

ENDS = ("model.embed_tokens.weight", "lm_head.weight")


def spec(cfg, method, *, train=(), **stage):
    """As much of a spec as the optimizer reads."""
    shared = replace(cfg.train, weight_decay=0.1, **dict(train))
    return SimpleNamespace(
        train=shared, stage=stage_of(method, **stage), zero=cfg.zero, peak_rate=0.01
    )


def llama(bias=True):
    return LlamaForCausalLM(
        LlamaConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2, vocab_size=40,
                    num_attention_heads=2, attention_bias=bias, tie_word_embeddings=False)
    )  # fmt: skip


def settings_of(model, spec, rows=()):
    """Rate and decay of each trained parameter, by name."""
    trainable = make_trainable(model, spec.stage, False, 1, rows)
    names = {id(p): name for name, p in trainable.parameters.items()}
    groups = parameter_groups(trainable, spec)
    found = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert found.keys() == trainable.parameters.keys()
    assert len(groups) == len(set(found.values()))
    return found


def test_matrices_decay_and_biases_and_norms_do_not(default_config):
    found = settings_of(llama(), spec(default_config, "full", embedding_rate_ratio=0.5))
    for name, (rate, decay) in found.items():
        assert rate == (0.005 if name in ENDS else 0.01), name
        assert decay == (0.0 if "norm" in name or "bias" in name else 0.1), name
    assert sum("bias" in name for name in found) == 8
    assert sum("norm" in name for name in found) == 5


def test_lora_and_embeddings_have_rates_and_decays_of_their_own(default_config):
    decays = {"embedding_weight_decay": 0.02, "lora_weight_decay": 0.03}
    stage = {"embedding_rate_ratio": 0.5, "lora_b_rate_ratio": 16.0, "train_embeddings": True}
    found = settings_of(llama(), spec(default_config, "lora", train=decays, **stage))
    kinds = {"lora_A": (0.01, 0.03), "lora_B": (0.16, 0.03), "weight": (0.005, 0.02)}
    for name, values in found.items():
        kind = next(kind for kind in kinds if kind in name)
        assert values == pytest.approx(kinds[kind]), name
    assert len(found) == 2 + 2 * 2 * 7


def test_embeddings_alone_have_the_rate_of_their_stage(default_config):
    found = settings_of(llama(), spec(default_config, "embeddings"))
    assert found == dict.fromkeys(ENDS, (0.01, 0.1))
    assert settings_of(llama(), spec(default_config, "new_rows"), [3]) == dict.fromkeys(
        ENDS, (0.01, 0.0)
    )


def test_a_step_is_that_of_a_plain_adamw(default_config):
    torch.manual_seed(0)
    models = [llama(bias=False), llama(bias=False)]  # the gradient of a key's bias is noise
    models[1].load_state_dict(models[0].state_dict())
    work = spec(default_config, "full", train={"beta1": 0.8, "beta2": 0.9})
    ours = build_optimizer(make_trainable(models[0], work.stage, False, 1), work)
    assert ours.defaults["fused"]
    matrices = [p for p in models[1].parameters() if p.dim() > 1]
    vectors = [p for p in models[1].parameters() if p.dim() == 1]
    plain = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=0.01, betas=(0.8, 0.9), foreach=False,
    )  # fmt: skip
    for _ in range(3):
        ids = torch.randint(0, 40, (2, 9))
        for model, optimizer in zip(models, (ours, plain), strict=True):
            optimizer.zero_grad()
            model(ids, labels=ids).loss.backward()
            optimizer.step()
    for (name, one), other in zip(
        models[0].named_parameters(), models[1].parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("processes", [1, 2])
def test_new_rows_move_and_all_others_keep_their_bits(tmp_path, processes):
    rows = [*range(5, 40, 3), 63]
    task = {"method": "new_rows", "rows": rows}
    variants = {f"zero{stage}": {"zero": stage} for stage in (0, 1, 2, 3)}
    variants["bf16"] = {"zero": 2, "precision": "bf16"}
    variants |= {"tied": {"zero": 1, "tied": True}, "parts": {"zero": 2, "micro": 32}}
    tasks = [{**task, **v, "folder": tmp_path / f"{name}"} for name, v in variants.items()]
    cut = [{**t, "folder": tmp_path / f"{name}-cut"} for name, t in zip(variants, tasks)]  # noqa: B905
    results = run([*tasks, *({**t, "stop_at": 4} for t in cut)], processes)
    for name, result in zip(variants, results, strict=False):
        ends = ENDS[:1] if name == "tied" else ENDS
        assert result["moved"] == dict.fromkeys(ends, rows), name
        assert result["losses"][-1] < result["losses"][0], name
    for result, again in zip(results, run(cut, processes), strict=False):
        assert again["hash"] == result["hash"]


def test_the_bias_of_a_head_is_masked_too_and_the_rows_are_counted():
    stage = stage_of("new_rows")
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40))
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(40))
    found = make_trainable(model, stage, False, 1, [4, 7, 9])
    assert set(found.weights) == {"transformer.wte.weight", "lm_head.bias"}
    assert found.count == 3 * 16 + 3
    ids = torch.randint(0, 40, (2, 9))
    model(ids, labels=ids).loss.backward()
    for parameter in found.parameters.values():
        assert parameter.grad.reshape(40, -1).any(1).nonzero()[:, 0].tolist() == [4, 7, 9]


def test_new_rows_before_there_is_an_old_vocabulary_are_refused():
    with user_error("stages.pretrain.method", "full", value="new_rows"):
        config.typed(config.compose(["experiment=example", "method@stages.pretrain=new_rows"]))
