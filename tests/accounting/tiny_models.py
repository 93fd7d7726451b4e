"""Tiny real models and random configurations that several tests of accounting share."""

import random

import peft
import torch
import transformers

from hpc_llm.accounting import Method

LLAMA_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


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
    model = transformers.AutoModelForCausalLM.from_config(
        settings, attn_implementation=attention, dtype=dtype
    )
    model.config.use_cache = False
    if method.name == "lora":
        every = LLAMA_LAYERS[:4] if config["model_type"] == "mixtral" else LLAMA_LAYERS
        layers = list(names or method.targets or every)
        model = peft.get_peft_model(
            model,
            peft.LoraConfig(r=method.rank, target_modules=layers, task_type="CAUSAL_LM"),
            autocast_adapter_dtype=False,
        )
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


def random_method(rng: random.Random, recompute: bool | None = None) -> Method:
    """Return a method; `recompute` None: drawn too."""
    recompute = rng.random() < 0.4 if recompute is None else recompute
    kind = rng.choice(["full", "embeddings", "input_embeddings", "head", "lora", "lora", "lora"])
    if kind != "lora":
        return getattr(Method, kind)(recompute=recompute)
    targets = tuple(rng.sample(LLAMA_LAYERS, rng.randint(1, 7)))
    return Method.lora(
        rng.choice([1, 2, 5]),
        rng.choice(["all", targets]),
        embeddings=rng.random() < 0.4,
        head=rng.random() < 0.4,
        recompute=recompute,
    )
