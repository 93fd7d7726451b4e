"""Reads the Hugging Face `config.json` of each known family as the fields of `Architecture`.

A `config.json` omits values that equal the family's defaults, so the defaults are here too. They
are those of the configuration classes of transformers 5.23.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from hpc_llm.accounting.config_keys import check_values
from hpc_llm.errors import UserError

__all__ = ["FAMILIES", "NoFormula", "fields_from_config"]


class NoFormula(UserError):
    """The model has no closed form here; its costs can be counted on the model."""


Config = Mapping[str, Any]
Fields = dict[str, Any]
Names = tuple[str, ...]

SHORT: dict[str, Names] = {  # names of GPT-2 and BLOOM
    "layers": ("n_layer", "num_hidden_layers"),
    "heads": ("n_head", "num_attention_heads"),
}


def _need(config: Config, *names: str) -> Any:
    values = [config.get(name) for name in names]
    for value in values:
        if value is not None:
            return value
    near = difflib.get_close_matches(names[0], set(config) - set(names), n=1, cutoff=0.9)
    looks = f" (it has {near[0]})" if near else ""
    rule = f"{' or '.join(names)} is missing for model_type={config.get('model_type')}{looks}"
    raise UserError("config.json", None, rule, "add it, or use the model's own file")


def _given(config: Config, name: str, default: int) -> Any:
    """Return the value, or the default where it is missing or null; 0 is a value, refused later."""
    value = config.get(name)
    return default if value is None else value


def _stack(
    config: Config,
    hidden: Names = ("hidden_size",),
    layers: Names = ("num_hidden_layers",),
    heads: Names = ("num_attention_heads",),
) -> Fields:
    """Read width, layers and heads; a family may have other names for them."""
    return {
        "hidden_size": _need(config, *hidden),
        "num_layers": _need(config, *layers),
        "num_heads": _need(config, *heads),
    }


def _llama(config: Config) -> Fields:
    bias = bool(config.get("attention_bias", False))
    stack = _stack(config)
    return stack | {
        "num_kv_heads": _given(config, "num_key_value_heads", stack["num_heads"]),
        "head_dim": config.get("head_dim"),
        "ffn_size": _need(config, "intermediate_size"),
        "vocab_size": _need(config, "vocab_size"),
        "tied_embeddings": bool(config.get("tie_word_embeddings", False)),
        "qkv_bias": bias,
        "output_bias": bias,
        "mlp_bias": bool(config.get("mlp_bias", False)),
    }


def _mistral(config: Config) -> Fields:
    window = config.get("sliding_window") or 0
    fields = _llama(config)
    layers = range(fields["num_layers"] if window else 0)
    return fields | {"sliding_window": window, "sliding_layers": tuple(layers)}


def _mixtral(config: Config) -> Fields:
    return _mistral(config) | {
        "num_experts": config.get("num_local_experts", 8),
        "experts_per_token": config.get("num_experts_per_tok", 2),
    }


def _qwen2(config: Config) -> Fields:
    fields = _llama(config) | {"qkv_bias": True, "output_bias": False}
    if config.get("use_sliding_window"):
        first = config.get("max_window_layers", 28)
        fields["sliding_window"] = _need(config, "sliding_window")
        fields["sliding_layers"] = tuple(range(first, fields["num_layers"]))
    return fields


def _qwen3(config: Config) -> Fields:
    bias = bool(config.get("attention_bias", False))
    fields = _qwen2(config) | {"qkv_bias": bias, "output_bias": bias, "qk_norm": True}
    return fields | {"head_dim": _given(config, "head_dim", 128)}


def _gemma(config: Config) -> Fields:
    fields = _llama(config) | {"head_dim": _given(config, "head_dim", 256)}
    return fields | {"tied_embeddings": bool(config.get("tie_word_embeddings", True))}


def _gemma2(config: Config) -> Fields:
    fields = _gemma(config) | {"norms_per_layer": 4}
    window = config.get("sliding_window", 4096) or 0
    layers = range(0, fields["num_layers"] if window else 0, 2)  # every other one, the first too
    return fields | {"sliding_window": window, "sliding_layers": tuple(layers)}


def _layer_norm(config: Config, fields: Fields, *, tied: bool) -> Fields:
    """Add the properties of older families: LayerNorm, biases everywhere, an MLP without gate."""
    shared = {
        "gated_mlp": False,
        "norm_bias": True,
        "qkv_bias": True,
        "output_bias": True,
        "mlp_bias": True,
        "vocab_size": _need(config, "vocab_size"),
        "tied_embeddings": bool(config.get("tie_word_embeddings", tied)),
    }
    return shared | fields


def _opt(config: Config) -> Fields:
    hidden = _need(config, "hidden_size")
    before = config.get("do_layer_norm_before", True)
    if config.get("word_embed_proj_dim", hidden) != hidden or not before:
        rule = (
            f"word_embed_proj_dim={config.get('word_embed_proj_dim')} and do_layer_norm_before="
            f"{before} (OPT-350M): its projections are not counted"
        )
        raise NoFormula("config.json", None, rule, "use another size of OPT")
    bias = bool(config.get("enable_bias", True))
    fields = _stack(config) | {
        "ffn_size": _need(config, "ffn_dim"),
        "max_positions": _need(config, "max_position_embeddings") + 2,
        "qkv_bias": bias,
        "output_bias": bias,
        "mlp_bias": bias,
        "dropout": config.get("dropout", 0.1) > 0,
    }
    return _layer_norm(config, fields, tied=True)


def _gpt2(config: Config) -> Fields:
    stack = _stack(config, ("n_embd", "hidden_size"), **SHORT)
    fields = stack | {
        "fused_qkv": True,
        "ffn_size": _given(config, "n_inner", 4 * stack["hidden_size"]),
        "max_positions": _need(config, "n_positions", "max_position_embeddings"),
        "dropout": config.get("resid_pdrop", 0.1) > 0,
    }
    return _layer_norm(config, fields, tied=True)


def _gpt_neox(config: Config) -> Fields:
    bias = bool(config.get("attention_bias", True))
    fields = _stack(config) | {
        "fused_qkv": True,
        "parallel_residual": bool(config.get("use_parallel_residual", True)),
        "ffn_size": _need(config, "intermediate_size"),
        "qkv_bias": bias,
        "output_bias": bias,
        "dropout": config.get("hidden_dropout", 0.0) > 0,
    }
    return _layer_norm(config, fields, tied=False)


def _bloom(config: Config) -> Fields:
    stack = _stack(config, ("hidden_size", "n_embed"), **SHORT)
    fields = stack | {
        "fused_qkv": True,
        "ffn_size": 4 * stack["hidden_size"],
        "other_norms": 2,
        "dropout": config.get("hidden_dropout", 0.0) > 0,
    }
    return _layer_norm(config, fields, tied=True)


def _bert(config: Config) -> Fields:
    stack = _stack(config)
    hidden, types = stack["hidden_size"], config.get("type_vocab_size", 2)
    fields = stack | {
        "kind": "encoder",
        "ffn_size": _need(config, "intermediate_size"),
        "max_positions": _need(config, "max_position_embeddings") + types,
        "extra_parameters": hidden * hidden + hidden,  # the pooler
    }
    return _layer_norm(config, fields, tied=True)


def _t5(config: Config) -> Fields:
    heads = _need(config, "num_heads")
    layers = _need(config, "num_layers")
    buckets = config.get("relative_attention_num_buckets", 32)
    return {
        "kind": "encoder-decoder",
        "hidden_size": _need(config, "d_model"),
        "num_layers": _given(config, "num_decoder_layers", layers),
        "encoder_layers": layers,
        "num_heads": heads,
        "head_dim": _need(config, "d_kv"),
        "ffn_size": _need(config, "d_ff"),
        "vocab_size": _need(config, "vocab_size"),
        "gated_mlp": str(config.get("feed_forward_proj", "relu")).startswith("gated-"),
        "tied_embeddings": bool(config.get("tie_word_embeddings", True)),
        "other_norms": 2,
        "extra_parameters": 2 * buckets * heads,
    }


def _bart(config: Config) -> Fields:
    ffn, heads = _need(config, "decoder_ffn_dim"), _need(config, "decoder_attention_heads")
    if (config.get("encoder_ffn_dim", ffn), config.get("encoder_attention_heads", heads)) != (
        ffn,
        heads,
    ):
        rule = "encoder and decoder of this BART differ in size, which is not counted"
        raise NoFormula("config.json", None, rule, "use a BART with equal sizes")
    fields = {
        "kind": "encoder-decoder",
        "hidden_size": _need(config, "d_model"),
        "num_layers": _need(config, "decoder_layers"),
        "encoder_layers": _need(config, "encoder_layers"),
        "num_heads": heads,
        "ffn_size": ffn,
        "max_positions": 2 * (_need(config, "max_position_embeddings") + 2),
        "other_norms": 2,
    }
    return _layer_norm(config, fields, tied=True)


FAMILIES: dict[str, Callable[[Config], Fields]] = {
    "bart": _bart,
    "bert": _bert,
    "bloom": _bloom,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "opt": _opt,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "roberta": _bert,
    "t5": _t5,
}


def fields_from_config(config: Config) -> Fields:
    """Return the keyword arguments of `Architecture` for a Hugging Face `config.json`.

    Raises `UserError` for an unknown family, a missing size and a value of the wrong type.
    """
    family = config.get("model_type")
    fix = f"choose one of {', '.join(FAMILIES)}"
    if not isinstance(family, str):
        raise UserError("model_type", str(family), "must be the name of a model family", fix)
    if family not in FAMILIES:
        raise NoFormula("model_type", family, "unknown model family", fix)
    check_values(config)
    return FAMILIES[family](config)
