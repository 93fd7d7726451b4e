"""Merge and save the final model: W = W0 + phi * (alpha / r) * B A; tied weights stay tied."""

import warnings
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hpc_llm.rundir import readable
from hpc_llm.surgery.adapters import adapted_weight, mergeable_layers
from hpc_llm.surgery.loading import gathered
from hpc_llm.surgery.portable import make_portable

__all__ = ["attach_adapter", "merge_adapter", "save_model"]


def attach_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Return `model` with the adapter in `folder` attached (peft layout, safetensors)."""
    with readable(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=False)


def merge_adapter(model: PeftModel, phi: float) -> PreTrainedModel:
    """Merge the adapters into the weights with merging factor `phi`, accumulated in fp32.

    Returns the plain causal model; the adapters are gone from it. Raises `UserError` for adapters
    without a known exact merge, before a weight is changed: see `hpc_llm.surgery.adapters`.
    """
    for layer in mergeable_layers(model):
        weight = adapted_weight(layer)
        with gathered([weight]):
            (name,) = layer.active_adapters
            delta = layer.get_delta_weight(name).float()  # as the weight, alpha / r included
            weight.copy_((weight.float() + phi * delta).to(weight.dtype))
    return model.unload()


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, precision: torch.dtype
) -> None:
    """Write a model folder for transformers: safetensors, configuration, tokenizer."""
    model.to(precision)
    model.config.use_cache = True
    model.save_pretrained(folder)
    model.config.use_cache = False
    tokenizer.save_pretrained(folder)
    make_portable(folder)
