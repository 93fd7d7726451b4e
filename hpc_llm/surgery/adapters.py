"""Adapters of peft that fold into the weights exactly: plain LoRA on linear layers.

`exact_lora` decides for all that scale or merge adapters. A LoRA layer computes
x W^T + s (x A^T) B^T, with A (r, in), B (out, r) and s = alpha / r, or alpha / sqrt(r) for rsLoRA,
so W + s B A computes the same (Hu et al. 2021, arXiv 2106.09685; Kalajdzievski 2023, arXiv
2312.03732). Every other adapter is refused by name: DoRA normalises W + s B A, IA3 and OFT
multiply, prompts add positions, and trained biases, tokens and module copies are outside B A.
"""

from collections import Counter
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import Linear
from peft.tuners.tuners_utils import BaseTunerLayer

from hpc_llm.errors import UserError

__all__ = ["exact_lora"]

LORA = "LORA"
OPTIONS = {
    "use_dora": "DoRA normalises the adapted weight",
    "bias": "trained biases would be lost or stay at phi=0",
    "lora_bias": "the bias of factor B is no part of B A",
    "modules_to_save": "fully trained copies of modules would be lost",
    "trainable_token_indices": "trained rows of tokens would be lost",
    "target_parameters": "only adapters of linear layers have a known exact merge",
    "layer_replication": "replicated layers share one base weight",
}
"""Settings of peft's `LoraConfig` under which B A is not all that was trained: why."""
UNSET: tuple[object, ...] = (None, False, "none", [], {}, ())
FIX = "train with plain LoRA or rsLoRA on linear layers"


def exact_lora(model: torch.nn.Module) -> dict[str, Linear]:
    """Return the LoRA layers of `model` by module name, each with one active, unmerged adapter.

    Raises `UserError` (its key begins with `adapter`) for a model without adapters, and for any
    adapter that W + s B A does not reproduce exactly.
    """
    active, configs = _active(model)
    for name in active:
        if name in configs:
            _check_config(configs[name])
    layers: dict[str, Linear] = {}
    shared = _shared_weights(model)
    for path, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer):
            layers[path] = _checked_layer(path, layer, shared)
    if not layers:
        raise UserError("adapter", "none", "the model has no LoRA layers", "attach its adapter")
    return layers


def _active(model: torch.nn.Module) -> tuple[list[str], dict[str, PeftConfig]]:
    """Return the names of the active adapters and the configurations of all."""
    for module in model.modules():
        configs = getattr(module, "peft_config", None)
        if isinstance(configs, dict):
            active = module.active_adapter
            active = active() if callable(active) else active
            return [active] if isinstance(active, str) else list(active), configs
    return [], {}


def _check_config(config: PeftConfig) -> None:
    kind = getattr(config.peft_type, "value", config.peft_type)
    if kind != LORA:
        raise UserError("adapter.peft_type", kind, "has no known exact merge; LORA has", FIX)
    for option, reason in OPTIONS.items():
        value: Any = getattr(config, option, None)
        if value not in UNSET:
            raise UserError(f"adapter.{option}", value, reason, FIX)


def _checked_layer(path: str, layer: BaseTunerLayer, shared: set[int]) -> Linear:
    """Return `layer` if B A is its whole change. Raises `UserError`."""
    if type(layer) is not Linear:
        kind = type(layer).__name__
        library = "LoRA" if isinstance(layer, LoraLayer) else type(layer).__module__.split(".")[-2]
        rule = f"{library} layer {path} has no known exact merge; linear LoRA layers have"
        raise UserError("adapter.layer", kind, rule, FIX)
    names = list(layer.active_adapters)
    if layer.merged:
        raise UserError("adapter", "merged", f"{path} is merged already", "attach it unmerged")
    if len(names) != 1 or layer.disable_adapters:
        found = "disabled" if layer.disable_adapters else ",".join(names)
        raise UserError("adapter", found, "exactly one must be active", "use set_adapter(NAME)")
    if variant := layer.lora_variant.get(names[0]):
        kind = type(variant).__name__
        raise UserError("adapter.variant", kind, f"{path}: has no known exact merge", FIX)
    if layer.lora_bias.get(names[0]):
        raise UserError("adapter.lora_bias", True, OPTIONS["lora_bias"], FIX)
    if id(layer.get_base_layer().weight) in shared:
        rule = "its weight is tied to another layer, which the merge would change too"
        raise UserError("adapter.target_modules", path, rule, "do not adapt tied layers")
    return layer


def _shared_weights(model: torch.nn.Module) -> set[int]:
    """Return the identities of parameters that several modules hold (tied or replicated)."""
    holders = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    return {parameter for parameter, count in holders.items() if count > 1}
