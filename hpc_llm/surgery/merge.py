"""Merge and save the final model: W = W0 + phi * (alpha / r) * B A; tied weights stay tied."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, PeftModelForCausalLM, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hpc_llm.surgery.adapters import adapted_weight, mergeable_layers
from hpc_llm.surgery.loading import gathered
from hpc_llm.surgery.portable import make_portable
from hpc_llm.surgery.shards import SHARD_BYTES
from hpc_llm.tokenizer.files import copy_tokenizer

__all__ = ["attach_adapter", "merge_adapter", "merged_weight", "save_adapter", "save_model"]

PREFIX = "base_model.model."  # of the plain model's names in a `PeftModel`


def save_adapter(
    model: PeftModel,
    folder: Path,
    adapters: Mapping[str, torch.Tensor],
    embeddings: Mapping[str, torch.Tensor],
    base: str | None,
) -> None:
    """Write the adapter of `model` into `folder` in the layout of peft (safetensors).

    `adapters` are its weights by their names in `model`, `embeddings` further trained weights by
    their names in the plain model: peft loads them into the base, the model at `base`, so that
    `PeftModel.from_pretrained` gives the trained model. None: there is no saved model on which the
    adapter was trained.
    """
    for config in model.peft_config.values():
        config.base_model_name_or_path = base
        if isinstance(config.target_modules, set):  # written in another order in each process
            config.target_modules = sorted(config.target_modules)
    model.save_pretrained(folder, state_dict=dict(adapters), save_embedding_layers=False)
    file = folder / SAFETENSORS_WEIGHTS_NAME
    if embeddings and file.is_file():
        whole = {f"{PREFIX}{name}": tensor.contiguous() for name, tensor in embeddings.items()}
        save_file(load_file(file) | whole, file, metadata={"format": "pt"})


def attach_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Return `model` with the adapter in `folder` attached (peft layout, safetensors).

    Weights of the plain model in that file are not loaded: `model` has them already. On a model
    without weights (meta device) the adapter has its own, in host memory.
    """
    own = {f"{PREFIX}{name}" for name, _ in model.named_parameters()}
    saved = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    config = PeftConfig.from_pretrained(folder)
    config.inference_mode = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        attached = PeftModelForCausalLM(model, config, autocast_adapter_dtype=False)
    kept = {name: tensor for name, tensor in saved.items() if name not in own}
    if model.device.type != "meta":
        set_peft_model_state_dict(attached, kept)
    _assign_factors(attached, kept)
    return attached.eval()


def _assign_factors(attached: PeftModel, saved: Mapping[str, torch.Tensor]) -> None:
    """Set the factors of LoRA by their names in the model.

    peft renames some as transformers renames weights while loading, and then finds no place for
    them; on the meta device it loads none.
    """
    for name, layer in attached.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        weight = adapted_weight(layer)
        device = "cpu" if weight.is_meta else weight.device
        for kind in ("lora_A", "lora_B"):
            for factor in getattr(layer, kind).values():
                if (value := saved.get(f"{name}.{kind}.weight")) is not None:
                    value = value.to(device, weight.dtype)
                    factor.weight = torch.nn.Parameter(value, requires_grad=False)


def merge_adapter(model: PeftModel, phi: float) -> PreTrainedModel:
    """Merge the adapters into the weights with merging factor `phi`, accumulated in fp32.

    Returns the plain causal model; the adapters are gone from it. Raises `UserError` for adapters
    without a known exact merge, before a weight is changed: see `hpc_llm.surgery.adapters`.
    """
    for layer in mergeable_layers(model):
        weight = adapted_weight(layer)
        with gathered([weight]):
            (name,) = layer.active_adapters
            weight.copy_(merged_weight(weight, phi, layer.get_delta_weight(name)))
    return model.unload()


def merged_weight(weight: torch.Tensor, phi: float, delta: torch.Tensor) -> torch.Tensor:
    """Return `weight` + phi * `delta` (alpha / r included), summed in fp32, in its precision."""
    return (weight.float() + phi * delta.float()).to(weight.dtype)


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | Path,
    folder: Path,
    precision: torch.dtype,
    *,
    without_weights: bool = False,
) -> None:
    """Write a model folder for transformers: safetensors shards, configuration, tokenizer.

    The files of a tokenizer given by its folder are copied unchanged.
    """
    model.to(precision)
    model.config.use_cache = True
    state: dict[str, torch.Tensor] | None = {} if without_weights else None
    model.save_pretrained(folder, state_dict=state, max_shard_size=SHARD_BYTES)
    model.config.use_cache = False
    if not isinstance(tokenizer, Path):
        tokenizer.save_pretrained(folder)
    make_portable(folder)
    if isinstance(tokenizer, Path):
        copy_tokenizer(tokenizer, folder)
