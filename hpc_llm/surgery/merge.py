"""Attach, merge and save: W = W0 + phi (alpha / r) B A, with tied weights kept tied."""

import warnings
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hpc_llm.surgery.adapters import exact_lora
from hpc_llm.surgery.loading import gathered

__all__ = ["attach_adapter", "merge_adapter", "save_model"]


def attach_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Return `model` with the adapter in `folder` (peft layout, safetensors)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False)


def merge_adapter(model: PeftModel, phi: float) -> PreTrainedModel:
    """Fold the LoRA adapter into the weights with merging factor `phi`, accumulated in fp32.

    Returns the plain causal model without the adapter. Raises `UserError` before any weight
    changes for an adapter that has no known exact merge (see `exact_lora`).
    """
    for layer in exact_lora(model).values():
        weight = layer.get_base_layer().weight  # (out, in); (in, out) for the Conv1D of GPT-2
        with gathered([weight]):
            delta = layer.get_delta_weight(layer.active_adapters[0]).float()  # as `weight`, scaled
            weight.copy_((weight.float() + phi * delta).to(weight.dtype))
    return model.unload()


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, precision: torch.dtype
) -> None:
    """Write a model folder that plain transformers loads: safetensors, config.json, tokenizer."""
    model.to(precision)
    model.config.use_cache = True
    model.save_pretrained(folder)
    model.config.use_cache = False
    tokenizer.save_pretrained(folder)
