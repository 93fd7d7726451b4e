"""Adapters with a known exact merge: plain LoRA on linear layers and on stacked experts.

`W = W0 + phi * scale * B A` is exact for LoRA (scale alpha / r) and rsLoRA (scale alpha / sqrt(r)).
Every other peft tuner, and every option that adds terms to B A, raises an error: a merge that drops
them would silently produce a different model.
"""

from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from transformers.pytorch_utils import Conv1D

from hpc_llm.errors import UserError

__all__ = ["adapted_weight", "is_linear", "mergeable_layers"]

SAME_AS_LINEAR = ("FalconLinear",)  # a product and a sum instead of one function

KEY = "adapter"


def is_linear(module: torch.nn.Module) -> bool:
    """Whether `module` computes x W + c and nothing else.

    Subclasses that compute something else (routers, quantised layers) are no linear layers.
    """
    if isinstance(module, Conv1D):  # the transposed linear layer of GPT-2
        return True
    kind = type(module)
    return isinstance(module, torch.nn.Linear) and (
        kind.forward is torch.nn.Linear.forward or kind.__name__ in SAME_AS_LINEAR
    )


def adapted_weight(layer: LoraLayer) -> torch.Tensor:
    """Return the weight that an adapter changes: of a linear layer, or the stacked experts."""
    if isinstance(layer, ParamWrapper):
        return layer.get_param()
    weight: torch.Tensor = layer.get_base_layer().weight
    return weight


def mergeable_layers(model: torch.nn.Module) -> list[LoraLayer]:
    """Return the LoRA layers of a model whose adapter merges exactly.

    Raises `UserError` for a tuner or an option without a known exact merge, for a model without
    adapters, and for adapters that are already merged or disabled.
    """
    for config in getattr(model, "peft_config", {}).values():
        _check_config(config)
    layers: list[LoraLayer] = []
    for name, module in model.named_modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            kind = type(module).__name__.removesuffix("Wrapper")
            raise _refusal(f"{kind} at {name}", "trains a copy of the layer, which a merge drops")
        if isinstance(module, BaseTunerLayer):
            if not isinstance(module, LoraLayer):
                kind = type(module).__module__.split(".")[-2]
                raise _refusal(kind, f"{type(module).__name__} at {name} has no known exact merge")
            _check_layer(name, module)
            layers.append(module)
    if not layers:
        raise UserError(KEY, None, "the model has no LoRA layers", "attach its adapters")
    _check_tied(model, layers)
    return layers


def _refusal(value: object, rule: str) -> UserError:
    return UserError(KEY, value, rule, "merge it with the library it was made with, or use LoRA")


def _check_config(config: Any) -> None:
    """Raise `UserError` for tuners without layers (prompts), and for options that extend B A."""
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind != "LORA":
        raise _refusal(kind, "this tuner has no known exact merge")
    for option in ("modules_to_save", "trainable_token_indices"):
        if getattr(config, option, None):
            raise _refusal(option, f"trains {getattr(config, option)}, which a merge drops")
    if config.bias != "none":
        raise _refusal(f"bias={config.bias}", "trains biases, which are not part of B A")


def _check_layer(name: str, layer: LoraLayer) -> None:
    base = layer.get_base_layer()
    if not is_linear(base) and not isinstance(layer, ParamWrapper):
        raise _refusal(f"LoRA on {type(base).__name__}", f"{name} is not a linear layer")
    if layer.merged:
        raise UserError(KEY, None, f"{name} is already merged", "use an unmerged model")
    if layer.disable_adapters or len(layer.active_adapters) != 1:
        active = ", ".join(layer.active_adapters) or "none"
        raise _refusal(active, f"{name} must have exactly one active adapter")
    (active,) = layer.active_adapters
    if layer.use_dora.get(active) or active in layer.lora_magnitude_vector:
        raise _refusal("DoRA", f"{name} scales columns by their norm, which is nonlinear in B A")
    if active in layer.lora_variant:
        variant = type(layer.lora_variant[active]).__name__
        raise _refusal(variant, f"{name}: this variant of LoRA has no known exact merge")
    if layer.lora_bias.get(active):
        raise _refusal("lora_bias", f"{name} has a bias on B, which is not part of B A")


def _check_tied(model: torch.nn.Module, layers: list[LoraLayer]) -> None:
    """Raise `UserError` for modules that share a weight: a merge would change all of them."""
    adapted = {id(adapted_weight(layer)) for layer in layers}
    if len(adapted) < len(layers):
        raise _refusal("a shared weight", "shared by several adapted layers (layer_replication)")
    for name, weight in _embeddings(model):
        if id(weight) in adapted:
            raise _refusal("a tied LM head", f"its weight is that of {name}, which would change")


def _embeddings(model: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding):
            yield name, module.weight
