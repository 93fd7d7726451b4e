"""A merged model written from files: W = W0 + phi * (alpha / r) * B A, two tensors at a time.

The bits are those of `apply_weights`, `merge_adapter` and `save_model` on the loaded model. Only
adapters are in memory as a whole.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft.tuners.lora.layer import ParamWrapper
from transformers import PreTrainedTokenizerBase

from hpc_llm.surgery.adapters import adapted_weight, mergeable_layers
from hpc_llm.surgery.merge import attach_adapter, merged_weight
from hpc_llm.surgery.outline import NotStreamed, Outline

__all__ = ["Change", "merged_tensors", "save_merged"]

Deltas = Mapping[str, Callable[[], torch.Tensor]]


@dataclass(frozen=True)
class Change:
    """What a training stage has changed."""

    weights: Mapping[str, torch.Tensor]
    """Weights by name in the plain model, in place of those before."""
    adapter: Path | None
    """Folder of its adapter in the layout of peft."""
    phi: float
    """Merging factor of the adapter."""


def save_merged(
    outline: Outline,
    changes: Sequence[Change],
    tokenizer: PreTrainedTokenizerBase | Path,
    folder: Path,
) -> None:
    """Write the model after `changes` as a model folder.

    Raises `NotStreamed` if a changed weight is not in the files as it is in the model, and
    `UserError` for an adapter without a known exact merge, before anything is written.
    """
    outline.save(tokenizer, folder, merged_tensors(outline, changes))


def merged_tensors(outline: Outline, changes: Sequence[Change]) -> Callable[[str], torch.Tensor]:
    """Return the function that gives a tensor after `changes` by its name in the files."""
    steps = [(change, _deltas(outline, change)) for change in changes]
    in_files = outline.file_names()
    for change, deltas in steps:
        for name in [*change.weights, *deltas]:
            if name not in in_files:
                raise NotStreamed(f"{name} is not in its files as it is in the model")
    in_model = {file: name for name, file in in_files.items()}

    def tensor_of(file_name: str) -> torch.Tensor:
        name = in_model.get(file_name, "")
        value: torch.Tensor | None = None
        for change, deltas in steps:
            if name in change.weights:
                value = change.weights[name].to(outline.types[file_name])
            if name in deltas:
                value = outline.tensor(file_name) if value is None else value
                value = merged_weight(value, change.phi, deltas[name]())
        return outline.tensor(file_name) if value is None else value

    return tensor_of


def _deltas(outline: Outline, change: Change) -> Deltas:
    """Return what computes the change of each adapted weight, alpha / r included, by name."""
    if change.adapter is None:
        return {}
    model = outline.model
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    attached = attach_adapter(model, change.adapter)
    found = {}
    for layer in mergeable_layers(attached):
        if isinstance(layer, ParamWrapper):
            raise NotStreamed("an adapter changes stacked experts")
        (active,) = layer.active_adapters
        found[names[id(adapted_weight(layer))]] = _delta_of(layer, active)
    attached.unload()  # the layers keep their factors
    return found


def _delta_of(layer: torch.nn.Module, active: str) -> Callable[[], torch.Tensor]:
    def delta() -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = layer.get_delta_weight(active)
            return found

    return delta
