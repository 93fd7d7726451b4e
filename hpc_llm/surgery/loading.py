"""Models and tokenizers in the Hugging Face layout: load, apply trained weights, save.

Weights are safetensors; pickle is never loaded, and code that comes with a model is not run
unless `model.trust_remote_code` says so.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from hpc_llm.errors import UserError
from hpc_llm.settings import ModelSettings
from hpc_llm.surgery.folders import check_model_folder

__all__ = [
    "DTYPES",
    "apply_weights",
    "build_model",
    "load_model",
    "load_tokenizer",
    "model_type",
    "quiet_transformers",
]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def quiet_transformers() -> None:
    """Keep transformers' progress bars and hints off the console: ours tell what happens."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def load_model(path: str | Path, settings: ModelSettings, precision: str) -> PreTrainedModel:
    """Load a causal language model in `precision`, ready for packed batches (no KV cache)."""
    quiet_transformers()
    check_model_folder(str(path))
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            revision=settings.revision,
            dtype=DTYPES[precision],
            attn_implementation=settings.attention,
            trust_remote_code=settings.trust_remote_code,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"model.path={path}: {first}; give a folder or a reachable id") from error
    model.config.use_cache = False  # with the cache on, packed documents would see each other
    return model


def load_tokenizer(path: str | Path, settings: ModelSettings) -> PreTrainedTokenizerBase:
    """Load the tokenizer that lies beside a model."""
    quiet_transformers()
    try:
        return AutoTokenizer.from_pretrained(
            path, revision=settings.revision, trust_remote_code=settings.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"model.path={path}: no tokenizer could be read ({first})") from error


def build_model(architecture: dict[str, Any], vocab_size: int, seed: int) -> PreTrainedModel:
    """Build an untrained fp32 model from a Hugging Face configuration mapping."""
    quiet_transformers()
    settings = {**architecture, "vocab_size": vocab_size}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    model.config.use_cache = False
    return model


def apply_weights(model: torch.nn.Module, folders: Iterable[Path]) -> None:
    """Copy the weights that earlier stages trained (`weights.safetensors`) into `model`.

    Under ZeRO-3 each parameter is gathered for the copy and rank 0's copy is kept by all.
    """
    parameters = dict(model.named_parameters())
    for folder in folders:
        for name, value in load_file(folder / "weights.safetensors").items():
            _copy(parameters[name], value)


def _copy(parameter: torch.nn.Parameter, value: torch.Tensor) -> None:
    if hasattr(parameter, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0), torch.no_grad():
            if parameter.numel():
                parameter.copy_(value)
    else:
        with torch.no_grad():
            parameter.copy_(value)


def model_type(path: str | Path, settings: ModelSettings) -> str:
    """Return the kind of a model (llama, qwen2, ...) from its configuration."""
    config = AutoConfig.from_pretrained(
        path, revision=settings.revision, trust_remote_code=settings.trust_remote_code
    )
    return str(config.model_type)
