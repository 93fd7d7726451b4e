"""Parameter counts against transformers models, built on the meta device."""

import pytest
import torch
import transformers
from errors import user_error

from hpc_llm.accounting import Architecture, parameter_count

SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "vocab_size": 131,
    "max_position_embeddings": 64,
}
CONFIGS = {
    "llama": SIZES,
    "llama-gqa-bias": SIZES
    | {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True, "model_type": "llama"},
    "llama-tied": SIZES | {"tie_word_embeddings": True, "head_dim": 16, "model_type": "llama"},
    "mistral": SIZES | {"num_key_value_heads": 2},
    "mixtral": SIZES | {"num_key_value_heads": 2, "num_local_experts": 5, "num_experts_per_tok": 2},
    "qwen2": SIZES | {"num_key_value_heads": 2},
    "qwen3": SIZES | {"num_key_value_heads": 2, "head_dim": 20},
    "gemma": SIZES | {"num_key_value_heads": 1, "head_dim": 24},
    "gemma2": SIZES | {"num_key_value_heads": 2, "head_dim": 24},
    "opt": {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "ffn_dim": 80,
        "vocab_size": 131,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 48,
    },
    "gpt2": {"n_embd": 48, "n_layer": 3, "n_head": 4, "vocab_size": 131, "n_positions": 64},
    "gpt_neox": SIZES,
    "bloom": {"hidden_size": 48, "n_layer": 3, "n_head": 4, "vocab_size": 131},
    "bert": SIZES,
    "roberta": SIZES,
    "t5": {
        "d_model": 48,
        "d_kv": 10,
        "d_ff": 80,
        "num_layers": 3,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "vocab_size": 131,
    },
    "t5-gated": {
        "model_type": "t5",
        "d_model": 48,
        "d_kv": 10,
        "d_ff": 80,
        "num_layers": 3,
        "num_heads": 4,
        "vocab_size": 131,
        "feed_forward_proj": "gated-gelu",
    },
    "bart": {
        "d_model": 48,
        "encoder_layers": 3,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 80,
        "decoder_ffn_dim": 80,
        "vocab_size": 131,
        "max_position_embeddings": 64,
    },
}
CLASSES = {
    "encoder": transformers.AutoModel,
    "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
    "decoder": transformers.AutoModelForCausalLM,
}


def real_model(config: dict) -> torch.nn.Module:
    settings = transformers.AutoConfig.for_model(**config)
    kind = Architecture.from_config(config).kind
    with torch.device("meta"):
        model = CLASSES[kind].from_config(settings)
    model.tie_weights()
    return model


def count(parameters) -> int:
    return sum(p.numel() for p in {id(p): p for p in parameters}.values())


@pytest.mark.parametrize("name", CONFIGS)
def test_count_is_that_of_transformers(name: str) -> None:
    config = {"model_type": name, **CONFIGS[name]}
    arch, model = Architecture.from_config(config), real_model(config)
    counted = parameter_count(arch)
    assert counted.total == count(model.parameters())
    assert counted.total == counted.embedding + counted.head + counted.body
    norms = [m for m in model.modules() if "norm" in type(m).__name__.lower()]
    assert counted.norms == count(p for m in norms for p in m.parameters())
    embedding = model.get_input_embeddings().weight
    assert counted.embedding == embedding.numel()
    head = model.get_output_embeddings()
    assert counted.head == (0 if head is None or head.weight is embedding else head.weight.numel())


@pytest.mark.parametrize(
    "name",
    ["llama", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "opt", "gpt2", "gpt_neox", "bert"],
)
def test_the_complete_configuration_of_transformers_reads_the_same(name: str) -> None:
    config = {"model_type": name, **CONFIGS[name]}
    complete = transformers.AutoConfig.for_model(**config).to_dict()
    complete = Architecture.from_config(complete)
    assert parameter_count(complete) == parameter_count(Architecture.from_config(config))


def test_solar_and_mixtral_have_their_published_sizes() -> None:
    solar = Architecture(4096, 48, 32, 14336, 32000, 8)  # in the order of the fields
    assert parameter_count(solar).total == 10_731_524_096
    mixtral = Architecture(
        4096, 32, 32, 14336, 32000, 8, 128, True, False, 0, num_experts=8, experts_per_token=2
    )
    assert parameter_count(mixtral).total == 46_702_792_704
    assert parameter_count(mixtral).active == 12_879_925_248


GOOD = {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "ffn_size": 96, "vocab_size": 100}


@pytest.mark.parametrize(
    ("change", "key", "value", "mention"),
    [
        ({"hidden_size": 0}, "hidden_size", 0, "1"),
        ({"num_layers": -1}, "num_layers", -1, "1"),
        ({"hidden_size": 66}, "hidden_size", 66, "num_heads=4"),
        ({"num_kv_heads": 3}, "num_kv_heads", 3, "num_heads=4"),
        ({"num_kv_heads": 0}, "num_kv_heads", 0, "1"),
        ({"head_dim": -8}, "head_dim", -8, "1"),
        ({"ffn_size": 0}, "ffn_size", 0, "1"),
        ({"vocab_size": -1}, "vocab_size", -1, "1"),
        ({"max_positions": -1}, "max_positions", -1, "0"),
        ({"sliding_window": -4}, "sliding_window", -4, "0"),
        ({"num_experts": 4}, "experts_per_token", 0, "num_experts=4"),
        ({"num_experts": 2, "experts_per_token": 3}, "experts_per_token", 3, "num_experts=2"),
        ({"kind": "diffusion"}, "kind", "diffusion", "encoder-decoder"),
        ({"encoder_layers": 2}, "encoder_layers", 2, "kind=decoder"),
        ({"kind": "encoder-decoder"}, "encoder_layers", 0, "kind=encoder-decoder"),
        ({"hidden_size": 64.0}, "hidden_size", 64.0, "integer"),
        ({"sliding_window": 8, "sliding_layers": (2,)}, "sliding_layers", (2,), "num_layers=2"),
    ],
)
def test_invalid_sizes_are_refused(change: dict, key: str, value: object, mention: str) -> None:
    with user_error(key, mention, value=value):
        Architecture(**(GOOD | change))


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ({"num_key_value_heads": 0}, "num_key_value_heads", 0),
        ({"num_key_value_heads": 3}, "num_key_value_heads", 3),
        ({"num_attention_heads": 5}, "hidden_size", 48),
        ({"num_hidden_layers": -2}, "num_hidden_layers", -2),
        ({"vocab_size": "32k"}, "vocab_size", "32k"),
    ],
)
def test_a_config_json_with_invalid_sizes_is_refused(change: dict, key: str, value: object) -> None:
    with user_error(f"config.json: {key}", value=value):
        Architecture.from_config({"model_type": "llama"} | SIZES | change)


def test_an_error_about_an_unknown_family_lists_the_known_ones() -> None:
    with user_error("model_type", "llama", "qwen2", value="mamba"):
        Architecture.from_config({"model_type": "mamba"})
    with user_error("config.json", "hidden_size"):
        Architecture.from_config({"model_type": "llama", "num_attention_heads": 2})


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "gemma2"])
@pytest.mark.parametrize("types", [["full"] * 4, ["sliding"] * 4, ["sliding", "full"] * 2])
def test_the_layers_with_a_window_are_those_of_layer_types(family, types):
    """transformers builds the masks by `layer_types`, whatever the other keys say."""
    import transformers

    kinds = [f"{kind}_attention" for kind in types]
    config = transformers.AutoConfig.for_model(
        family, vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, layer_types=kinds,
        sliding_window=16, use_sliding_window=True,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config)
    slides = [
        number
        for number, layer in enumerate(model.model.layers)
        if getattr(layer.self_attn, "sliding_window", None)
    ]
    arch = Architecture.from_config(config.to_dict())
    assert list(arch.sliding_layers) == slides
    assert arch.sliding_window == (16 if slides else 0)
