"""Closed-form FLOPs equal `FlopCounterMode` on real transformers and PEFT models."""

import random

import pytest
import torch
from tiny_models import (
    BERT_LAYERS,
    ENCODERS,
    random_encoder,
    random_llama,
    random_method,
    trained_model,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from hpc_llm.accounting import Architecture, Method, step_flops, trainable_parameters

BATCH, LENGTH = 2, 16


def counted(model: torch.nn.Module, vocab_size: int) -> tuple[int, int]:
    """Return forward and total FLOPs of one step."""
    tokens = torch.randint(0, vocab_size, (BATCH, LENGTH))
    with FlopCounterMode(display=False) as counter:
        loss = model(input_ids=tokens, labels=tokens).loss
        forward = counter.get_total_flops()
        loss.backward()
    return forward, counter.get_total_flops()


def trained(model: torch.nn.Module, arch: Architecture, method: Method) -> int:
    """Count what trains; of an encoder what `AutoModel` has of it, and an untied head."""
    own = ("cls.predictions.", "lm_head.") if arch.kind == "encoder" else ()
    body = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        and (name.endswith("decoder.weight") or not any(part in name for part in own))
    )
    pooler = arch.extra_parameters if arch.kind == "encoder" and method.trains_body else 0
    return body + pooler


def assert_equals_the_counter(config: dict, method: Method, names: tuple[str, ...] = ()) -> None:
    model = trained_model(config, method, names=names)
    arch = Architecture.from_config(config)
    assert trainable_parameters(arch, method) == trained(model, arch, method)
    step = step_flops(arch, method, BATCH, LENGTH)
    assert (step.forward, step.total) == counted(model, arch.vocab_size)
    assert step.total == step.forward + step.backward + step.recompute


@pytest.mark.parametrize("seed", range(80))
def test_random_llama_equals_the_counter(seed: int) -> None:
    rng = random.Random(seed)
    assert_equals_the_counter(random_llama(rng), random_method(rng))


@pytest.mark.parametrize("seed", range(40))
def test_random_encoder_equals_the_counter(seed: int) -> None:
    rng = random.Random(seed)
    method = random_method(rng, layers=tuple(BERT_LAYERS))
    assert_equals_the_counter(random_encoder(rng), method)


MIXTRAL = {
    "model_type": "mixtral",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 50,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 32,
    "sliding_window": None,
    "output_router_logits": False,
}
GEMMA2 = {
    "model_type": "gemma2",
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 48,
    "vocab_size": 50,
    "max_position_embeddings": 32,
    "sliding_window": 8,
}
QWEN2 = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 50,
    "max_position_embeddings": 32,
    "tie_word_embeddings": True,
}
QWEN3 = QWEN2 | {"model_type": "qwen3", "head_dim": 12}
METHODS = [
    method
    for recompute in (False, True)
    for method in (
        Method.full(recompute=recompute),
        Method.embeddings(recompute=recompute),
        Method.head(recompute=recompute),
        Method.lora(2, recompute=recompute),
        Method.lora(3, ("o_proj",), head=True, recompute=recompute),
    )
]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.name}{'-again' * m.recompute}")
@pytest.mark.parametrize(
    "config", [MIXTRAL, GEMMA2, QWEN2, QWEN3], ids=lambda config: config["model_type"]
)
def test_other_families_equal_the_counter(config: dict, method: Method) -> None:
    assert_equals_the_counter(config, method)


OLDER = {
    "opt": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48,
            "max_position_embeddings": 32, "word_embed_proj_dim": 32, "dropout": 0.0},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "bos_token_id": 1,
             "eos_token_id": 1, "resid_pdrop": 0.0},
    "gpt_neox": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                 "intermediate_size": 48, "max_position_embeddings": 32},
    "gpt_neox-serial": {"model_type": "gpt_neox", "hidden_size": 32, "num_hidden_layers": 2,
                        "num_attention_heads": 4, "intermediate_size": 48,
                        "max_position_embeddings": 32, "use_parallel_residual": False},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
}  # fmt: skip


TARGETS = {
    "opt": ("q_proj", "v_proj", "fc1"),
    "gpt2": ("c_attn", "c_proj"),
    "gpt_neox": ("query_key_value", "dense_4h_to_h"),
    "gpt_neox-serial": ("query_key_value",),
    "bloom": ("dense", "dense_h_to_4h"),
}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("family", OLDER)
def test_older_families_equal_the_counter(family: str, recompute: bool) -> None:
    config = {"model_type": family, "vocab_size": 50, **OLDER[family]}
    assert_equals_the_counter(config, Method.full(recompute=recompute))
    assert_equals_the_counter(config, Method.embeddings(recompute=recompute))
    adapters = Method.lora(3, TARGETS[family], recompute=recompute)
    assert_equals_the_counter(config, adapters, names=TARGETS[family])


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ENCODERS)
def test_each_method_of_an_encoder_equals_the_counter(
    family: str, tied: bool, recompute: bool
) -> None:
    config = QWEN2 | {"model_type": family, "tie_word_embeddings": tied}
    for name in ("full", "embeddings", "input_embeddings", "head"):
        assert_equals_the_counter(config, getattr(Method, name)(recompute=recompute))
    assert_equals_the_counter(config, Method.lora(2, recompute=recompute))
    dense = ("attention.output.dense", "intermediate.dense", "output.dense")
    adapters = Method.lora(3, dense, head=True, recompute=recompute)
    assert_equals_the_counter(config, adapters, names=dense)


SOLAR = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 32000,
}
LLAMA3 = SOLAR | {"num_hidden_layers": 32, "vocab_size": 128256}


@pytest.mark.parametrize("config", [SOLAR, LLAMA3], ids=["solar-10.7b", "llama-3-8b"])
def test_full_size_equals_the_counter_under_fake_tensors(config: dict) -> None:
    length = 64
    with FakeTensorMode():
        model = trained_model(config, Method.embeddings())
        tokens = torch.zeros(1, length, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            model(input_ids=tokens, labels=tokens).loss.backward()
    arch = Architecture.from_config(config)
    step = step_flops(arch, Method.embeddings(), 1, length)
    assert step.total == counter.get_total_flops()
