"""A tiny model of every causal family of transformers, and its way from transplant to merge."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tiny import settings, stage_of
from tokenizers import Tokenizer, decoders, models
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from hpc_llm.accounting import stage_method
from hpc_llm.errors import UserError
from hpc_llm.stages.training import formula_of
from hpc_llm.surgery.families import REFUSED, check_family
from hpc_llm.surgery.loading import load_model
from hpc_llm.surgery.merge import merge_adapter, save_model
from hpc_llm.surgery.trainable import Trainable, make_trainable
from hpc_llm.training.counting import known_costs
from hpc_llm.training.data.batches import BatchPlan
from hpc_llm.training.kernels.attention import attend_by_document
from hpc_llm.training.kernels.layers import keep_less
from hpc_llm.training.kernels.losses import CausalLoss
from hpc_llm.training.kernels.low_rank import join_adapters
from hpc_llm.training.probe import keeps_apart
from hpc_llm.vocabulary.transplant import transplant

ROWS = 96
_SIZES: dict[int, str] = {
    ROWS: "vocab_size",
    32: "hidden_size d_model n_embd dim emb_dim embedding_size word_embed_proj_dim kv_channels",
    64: "attention_hidden_size",
    48: "intermediate_size ffn_dim d_ff n_inner decoder_ffn_dim encoder_ffn_dim ffn_hidden_size "
    "dff shared_intermediate_size expert_ffn_hidden_size",
    2: "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers "
    "num_decoder_layers num_encoder_layers num_key_value_heads num_experts_per_tok moe_topk moe_k "
    "num_experts_per_token linear_num_heads mamba_n_groups n_groups",
    4: "num_attention_heads n_head n_heads num_heads decoder_attention_heads "
    "encoder_attention_heads num_experts n_routed_experts num_local_experts moe_num_experts "
    "adapter_rank rotary_dim",
    256: "max_position_embeddings n_positions max_seq_len model_max_length n_ctx",
    24: "moe_intermediate_size shared_expert_intermediate_size router_hidden_size",
    16: "q_lora_rank kv_lora_rank mamba_chunk_size chunk_size mamba_d_state ssm_state_size "
    "state_size index_head_dim attention_head_dim",
    8: "head_dim qk_rope_head_dim qk_nope_head_dim v_head_dim mamba_d_head mamba_n_heads "
    "linear_head_dim linear_key_head_dim linear_value_head_dim mamba_head_dim mamba_num_heads",
    1: "n_group topk_group num_expert_group first_k_dense_replace num_mem_blocks",
}
SIZES = {name: size for size, names in _SIZES.items() for name in names.split()}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

# What a family needs beside these sizes
_EXTRA: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_types": ["linear_attention", "full_attention"], "layer_group_size": 2,
                       "mlp_layer_types": ["dense", "sparse"]},
    "bamba": {"attn_layer_indices": [1], "mamba_n_groups": 1},
    "codegen": {"n_head": 4},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_method": "greedy"},
    "dots1": {"num_experts_per_tok": 2, "n_shared_experts": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "mamba_n_groups": 1},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "inkling2_text": {"moe_intermediate_size": 24},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2,
              "expert_layer_period": 2, "expert_layer_offset": 1, "mamba_dt_rank": 4},
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"],
                    "mlp_layer_types": ["dense", "sparse"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "qwen3_5_moe_text": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_5_text": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen4_exp_text": {"layer_types": ["linear_attention", "full_attention"]},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "num_hidden_layers": 2,
                        "lru_width": 32, "num_attention_heads": 4, "attention_window_size": 64},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attention_head_size": 8,
                 "feed_forward_size": 48, "attn_layers": ["local", "local"], "num_hidden_layers": 2,
                 "local_attn_chunk_length": 16},
    "zamba": {"num_hidden_layers": 2, "layers_block_type": ["mamba", "hybrid"],
              "layer_types": ["mamba", "hybrid"], "n_mamba_heads": 2, "mamba_dt_rank": 4},
    "zamba2": {"num_hidden_layers": 2, "layers_block_type": ["mamba", "hybrid"],
               "layer_types": ["mamba", "hybrid"], "n_mamba_heads": 8, "mamba_headdim": 8,
               "mamba_ngroups": 1, "hybrid_layer_ids": [1]},
    "youtu": {"pad_token_id": None},  # transformers zeroes the row of the padding token on loading
    "zaya": {"num_experts_per_tok": 1, "layer_types": ["hybrid", "hybrid"]},
    "xlstm": {"num_heads": 4, "qk_dim_factor": 1.0, "v_dim_factor": 1.0, "chunk_size": 16},
    "gemma3n_text": {"layer_types": ["sliding_attention", "full_attention"],
                     "intermediate_size": [48, 48], "num_kv_shared_layers": 0,
                     "activation_sparsity_pattern": [0.0, 0.0], "hidden_size_per_layer_input": 8,
                     "vocab_size_per_layer_input": ROWS, "laurel_rank": 4},
    "gemma4_text": {"layer_types": ["sliding_attention", "full_attention"], "per_layer_config": {},
                    "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": ROWS},
    "longcat_flash": {"zero_expert_num": 2},
    "cohere_compass_text": {"layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {k: {"rope_type": "default", "rope_theta": 1e4}
                            for k in ("sliding_attention", "full_attention")}},
    "falcon_h1": {"mamba_d_ssm": 64},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"], "mamba_num_heads": 8},
    "roc_bert": {"pronunciation_vocab_size": 10, "shape_vocab_size": 10,
                 "pronunciation_embed_dim": 8, "shape_embed_dim": 8},
    "xmod": {"default_language": "en_XX"},
    "whisper": {"max_target_positions": 256},
}  # fmt: skip
DECODERS = {"is_decoder": True}


FAMILIES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(family: str) -> PreTrainedConfig:
    """Return a tiny configuration of `family`, with `ROWS` tokens."""
    standard = AutoConfig.for_model(family, **_needed(family))
    names = set(standard.to_dict())
    sizes = {
        k: v for k, v in SIZES.items() if getattr(standard, k, None) is not None and k in names
    }
    if "kv_lora_rank" in names:
        sizes["num_key_value_heads"] = sizes["num_attention_heads"] = 4
    tokens = {k: v for k, v in SPECIAL.items() if isinstance(getattr(standard, k, None), int)}
    decoder = DECODERS if getattr(standard, "is_decoder", None) is False else {}
    return AutoConfig.for_model(family, **{**sizes, **tokens, **decoder, **_EXTRA.get(family, {})})


def _needed(family: str) -> dict[str, Any]:
    return _EXTRA.get(family, {}) if family in ("zamba", "zamba2") else {}


def tiny_model(family: str, seed: int = 0) -> PreTrainedModel:
    """Return a tiny model of `family` with random weights."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(tiny_config(family))


@dataclass(frozen=True)
class Outcome:
    """What became of a family."""

    batches: str
    """packed | grouped."""
    flops: str
    """Source of its FLOPs: formula | counted | 6n."""


NEW_ROWS = 64
PLAN = BatchPlan(sequence_length=32, rows=2, micro_rows=2, accumulation=1, data_parallel=1)


def tokenizer(rows: int, skipped: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of `rows` tokens: four special ones, Latin and Cyrillic letters."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    letters = [chr(code) for code in (*range(0x61, 0x7B), *range(0x430 + skipped, 0x530))]
    tokens = [*special, *letters][:rows]
    scores = [(token, -float(index)) for index, token in enumerate(tokens)]
    built = Tokenizer(models.Unigram(scores, unk_id=3))
    built.decoder = decoders.Fuse()
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=built, **names)


@cache
def _tokenizers() -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    return tokenizer(ROWS, 0), tokenizer(NEW_ROWS, 5)


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Return the logits of a fixed text, of all tokens but the padding token."""
    model.eval()
    with torch.no_grad():
        found = model(input_ids=torch.arange(4, 24)[None], use_cache=False).logits
    return found[..., 1:]


def train_steps(model: PreTrainedModel, name: str, steps: int = 3) -> Trainable:
    """Train `steps` steps of the method `name` with the kernels of training."""
    trainable = make_trainable(model, stage_of(name), False, 1)
    loss = CausalLoss(trainable.model, trainable.causal).train()
    attend_by_document(trainable.causal)
    keep_less(trainable.causal)
    join_adapters(trainable.causal)
    optimizer = torch.optim.AdamW(trainable.parameters.values(), lr=1e-2)
    ids = torch.arange(4, 36).reshape(2, 16)
    labels = ids.roll(-1, 1)
    labels[:, 7] = -100
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        total = loss(ids, torch.arange(8).repeat(2, 2), labels)
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert losses[-1] < losses[0]
    return trainable


def adapt(family: str, folder: Path) -> Outcome:
    """Transplant, train, merge, save and reload a tiny model of `family`; raises if it fails.

    Raises `UserError` for a family that is refused.
    """
    cfg = settings("experiment=example").model
    old, new = _tokenizers()
    model = tiny_model(family)
    model.save_pretrained(folder / "base")
    old.save_pretrained(folder / "base")
    expected = logits(model)
    model = load_model(folder / "base", cfg, "fp32")
    torch.testing.assert_close(logits(model), expected)
    mean = settings().transplant
    transplant(model, old, new, mean, 1)
    assert logits(model).shape[-1] == NEW_ROWS - 1
    save_model(model, new, folder / "transplant", torch.float32)
    again = load_model(folder / "transplant", cfg, "fp32")
    torch.testing.assert_close(logits(again), logits(model))
    batches = "packed" if keeps_apart(again, 2) else "grouped"
    train_steps(again, "embeddings")
    trainable = train_steps(load_model(folder / "transplant", cfg, "fp32"), "lora")
    method, formula = stage_method(stage_of("lora")), formula_of(trainable.causal)
    costs = known_costs(trainable.model, formula, method, PLAN, verify=True, warn=lambda _: None)
    trained = logits(trainable.model)
    save_model(merge_adapter(trainable.model, 1.0), new, folder / "model", torch.float32)
    merged = logits(load_model(folder / "model", cfg, "fp32"))
    torch.testing.assert_close(merged, trained, rtol=1e-3, atol=1e-4)
    return Outcome(batches, costs.source)


UNTRIED = {
    "dbrx": "transformers cannot build it from its own configuration",
    "dots1": "transformers cannot build it from its own configuration",
    "dots3_note_text": "its layers differ in size; no tiny configuration was found",
    "qwen4_exp_text": "transformers cannot build it from its own configuration",
    "zamba": "it ties layers by its published depth; no tiny configuration was found",
}
"""Families without a tiny configuration, and why."""


def refusal(family: str) -> str | None:
    """Return why a family is refused before anything is read but its `config.json`, or None."""
    config = {} if family in REFUSED else AutoConfig.for_model(family).to_dict() | DECODERS
    try:
        check_family({**config, "model_type": family}, "model")
    except UserError as error:
        return str(error.rule)
    return None
