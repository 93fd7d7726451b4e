"""Keys that a Hugging Face `config.json` may have, and the types of their values.

A quoted number, or a misspelled key that is ignored, would be planned as another model.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

from hpc_llm.errors import UserError

__all__ = ["PLAIN", "as_written", "check_names", "check_values", "keys_read"]

Config = Mapping[str, Any]

_WHOLE = """
    d_ff d_kv d_model decoder_attention_heads decoder_ffn_dim decoder_layers
    encoder_attention_heads encoder_ffn_dim encoder_layers ffn_dim head_dim hidden_size
    intermediate_size max_position_embeddings max_window_layers n_embd n_embed n_head n_inner
    n_layer n_positions num_attention_heads num_decoder_layers num_experts_per_tok num_heads
    num_hidden_layers num_key_value_heads num_layers num_local_experts
    relative_attention_num_buckets sliding_window type_vocab_size vocab_size word_embed_proj_dim
"""
WHOLE = frozenset(_WHOLE.split())
_SWITCHES = """
    attention_bias do_layer_norm_before enable_bias mlp_bias tie_word_embeddings
    use_parallel_residual use_sliding_window
"""
SWITCHES = frozenset(_SWITCHES.split())
SHARES = frozenset({"dropout", "hidden_dropout", "resid_pdrop"})

# Keys of the configurations of transformers 5.23, and of older files, that change no size
_PLAIN = """
    activation_dropout activation_function add_bias_logits add_cross_attention
    add_final_layer_norm apply_residual_connection_post_layernorm architectures
    attention_dropout attention_probs_dropout_prob attention_softmax_in_fp32
    attn_implementation attn_logit_softcapping attn_pdrop auto_map bos_token_id
    chunk_size_feed_forward classif_dropout classifier_dropout decoder_layerdrop
    decoder_start_token_id dense_act_fn dropout dropout_rate dtype embd_pdrop encoder_layerdrop
    eos_token_id final_logit_softcapping forced_bos_token_id forced_eos_token_id
    gradient_checkpointing hidden_act hidden_activation hidden_dropout_prob id2label init_std
    initializer_factor initializer_range is_decoder is_encoder_decoder is_gated_act label2id
    layer_norm_elementwise_affine layer_norm_eps layer_norm_epsilon layer_types layerdrop
    max_position_embeddings max_window_layers model_type n_ctx n_positions normalize_before
    normalize_embedding num_labels offset_alibi output_attentions output_hidden_states
    output_past output_router_logits pad_token_id partial_rotary_factor
    position_embedding_type prefix pretraining_tp problem_type query_pre_attn_scalar
    relative_attention_max_distance reorder_and_upcast_attn return_dict rms_norm_eps
    rope_parameters rope_scaling rope_theta rotary_emb_base rotary_pct router_aux_loss_coef
    router_jitter_noise scale_attn_by_inverse_layer_idx scale_attn_weights
    scale_decoder_outputs scale_embedding sep_token_id seq_length skip_bias_add
    skip_bias_add_qkv sliding_window slow_but_exact static_position_embeddings
    summary_activation summary_first_dropout summary_proj_to_labels summary_type
    summary_use_proj task_specific_params tokenizer_class torch_dtype transformers_version
    unk_token_id unk_index use_bidirectional_attention use_cache
"""
PLAIN = frozenset(_PLAIN.split())
WRITTEN = {  # names of the fields of `Architecture` in a `config.json`
    "hidden_size": ("hidden_size", "n_embd", "n_embed", "d_model"),
    "num_layers": ("num_hidden_layers", "n_layer", "num_layers", "decoder_layers"),
    "num_heads": ("num_attention_heads", "n_head", "num_heads", "decoder_attention_heads"),
    "num_kv_heads": ("num_key_value_heads",),
    "ffn_size": ("intermediate_size", "ffn_dim", "n_inner", "d_ff", "decoder_ffn_dim"),
    "num_experts": ("num_local_experts",),
    "experts_per_token": ("num_experts_per_tok",),
}


MOST_LAYERS = 10_000
"""More would only fill the memory of whoever lists them."""


class _Watched(dict[str, Any]):
    """A configuration that records which of its keys were read."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)


def keys_read(read: Callable[[Config], object], config: Config) -> set[str]:
    """Return the keys of `config` that `read` looks up, present or not."""
    watched = _Watched(config)
    read(watched)
    return watched.read


def check_names(read: Callable[[Config], object], config: Config) -> None:
    """Raise `UserError` for a key of a hand-written configuration that `read` would ignore."""
    known = PLAIN | keys_read(read, config)
    for key in map(str, config):
        if key in known or key.startswith("_"):
            continue
        sizes = sorted(known - PLAIN)
        near = difflib.get_close_matches(key, sizes, n=1) or difflib.get_close_matches(
            key, PLAIN, n=1
        )
        hint = f"did you mean {near[0]}?" if near else f"its sizes are {', '.join(sizes)}"
        rule = f"{config.get('model_type')} has no such key"
        raise UserError(f"model.architecture.{key}", None, rule, hint)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_values(config: Config) -> None:
    """Raise `UserError` for a value of the wrong type, and for too many layers.

    null is valid for every key.
    """
    for key, value in config.items():
        rule = ""
        if key in WHOLE and (not isinstance(value, int) or isinstance(value, bool)):
            rule = "an integer"
        elif key in SWITCHES and not isinstance(value, bool):
            rule = "true or false"
        elif key in SHARES and not _is_number(value):
            rule = "a number"
        if rule and value is not None:
            raise UserError(f"config.json: {key}", value, f"must be {rule}", "remove any quotes")
        if key in WRITTEN["num_layers"] and value is not None and value > MOST_LAYERS:
            rule = f"must be at most {MOST_LAYERS:,}"
            raise UserError(f"config.json: {key}", value, rule, "use the model's own file")


def as_written(message: str, config: Config) -> str:
    """Return `message` with fields of `Architecture` by their names in `config`."""

    def word(found: re.Match[str]) -> str:
        present = (name for name in WRITTEN[found[0]] if config.get(name) is not None)
        return next(present, found[0])

    return re.sub(rf"\b({'|'.join(WRITTEN)})\b", word, message)
