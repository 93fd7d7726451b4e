"""Tiny real models and random configurations, shared by tests of accounting."""

import random
from collections.abc import Sequence

import peft
import torch
import transformers

from hpc_llm.accounting import Method

LLAMA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BERT_LAYERS = {  # in a layer of BERT and RoBERTa
    "q_proj": "attention.self.query",
    "k_proj": "attention.self.key",
    "v_proj": "attention.self.value",
    "o_proj": "attention.output.dense",
    "up_proj": "intermediate.dense",
    "down_proj": "output.dense",
}
ENCODERS = ("bert", "roberta")


def _adapted(config: dict, method: Method) -> list[str] | str:
    """Return `target_modules` of PEFT: names, or for an encoder a pattern of whole names."""
    family = config["model_type"]
    if family in ENCODERS:
        names = [BERT_LAYERS[name] for name in method.targets or BERT_LAYERS]
        return r".*\.layer\.\d+\.(" + "|".join(names) + ")"
    every = LLAMA_LAYERS[:4] if family == "mixtral" else LLAMA_LAYERS
    return list(method.targets or every)


def trained_model(
    config: dict,
    method: Method,
    attention: str = "eager",
    dtype: torch.dtype = torch.float32,
    names: tuple[str, ...] = (),
) -> torch.nn.Module:
    """Return the model with what `method` trains; the counter of FLOPs needs eager kernels.

    `names` are the adapted layers by the model's own names, where they are not Llama's.
    """
    torch.manual_seed(0)
    settings = transformers.AutoConfig.for_model(**config)
    settings._experts_implementation = "eager"
    encoder = config["model_type"] in ENCODERS
    build = transformers.AutoModelForMaskedLM if encoder else transformers.AutoModelForCausalLM
    model = build.from_config(settings, attn_implementation=attention, dtype=dtype)
    model.config.use_cache = False
    if method.name == "lora":
        adapters = peft.LoraConfig(
            r=method.rank,
            target_modules=list(names) or _adapted(config, method),
            task_type=None if encoder else "CAUSAL_LM",
        )
        model = peft.get_peft_model(model, adapters, autocast_adapter_dtype=False)
    elif method.name != "full":
        model.requires_grad_(False)
    if method.trains_embedding:
        model.get_input_embeddings().requires_grad_(True)
    if method.trains_head:
        model.get_output_embeddings().requires_grad_(True)
    if method.recompute:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model.train()


def random_llama(rng: random.Random) -> dict:
    """Return the `config.json` of a tiny Llama."""
    kv_heads = rng.choice([1, 2, 4])
    heads = kv_heads * rng.choice([1, 2, 3])
    head_dim = rng.choice([4, 8])
    return {
        "model_type": "llama",
        "hidden_size": heads * rng.choice([head_dim, 6]),
        "num_hidden_layers": rng.randint(1, 4),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": rng.choice([17, 32, 56]),
        "vocab_size": rng.choice([37, 64, 101]),
        "max_position_embeddings": 32,
        "tie_word_embeddings": rng.random() < 0.4,
    }


def random_encoder(rng: random.Random) -> dict:
    """Return the `config.json` of a tiny BERT or RoBERTa."""
    heads = rng.choice([1, 2, 3, 4])
    return {
        "model_type": rng.choice(ENCODERS),
        "hidden_size": heads * rng.choice([4, 6, 8]),
        "num_hidden_layers": rng.randint(1, 4),
        "num_attention_heads": heads,
        "intermediate_size": rng.choice([17, 32, 56]),
        "vocab_size": rng.choice([37, 64, 101]),
        "max_position_embeddings": 32,
        "type_vocab_size": rng.choice([1, 2]),
        "tie_word_embeddings": rng.random() < 0.6,
    }


def random_method(
    rng: random.Random, recompute: bool | None = None, layers: Sequence[str] = LLAMA_LAYERS
) -> Method:
    """Return a method with adapters on `layers`; `recompute` None: drawn too."""
    recompute = rng.random() < 0.4 if recompute is None else recompute
    kind = rng.choice(["full", "embeddings", "input_embeddings", "head", "lora", "lora", "lora"])
    if kind != "lora":
        return getattr(Method, kind)(recompute=recompute)
    targets = tuple(rng.sample(list(layers), rng.randint(1, len(layers))))
    return Method.lora(
        rng.choice([1, 2, 5]),
        rng.choice(["all", targets]),
        embeddings=rng.random() < 0.4,
        head=rng.random() < 0.4,
        recompute=recompute,
    )
