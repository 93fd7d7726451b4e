"""The model as it is after a point of the recipe, put together from what the stages left."""

from pathlib import Path

import torch
from transformers import PreTrainedModel

from hpc_llm.pipeline.context import Context
from hpc_llm.surgery.loading import apply_weights, load_model
from hpc_llm.surgery.merge import attach_adapter, merge_adapter
from hpc_llm.training.process_group import device_of
from hpc_llm.training.zero import division_config

__all__ = ["model_after", "open_adapter", "start_model"]


def _trained(context: Context, count: int) -> list[Path]:
    names = context.cfg.recipe.adaptation[:count]
    return [context.stage_folder(f"train/{name}") for name in names]


def _adapter(folder: Path) -> Path | None:
    adapter = folder / "adapter"
    return adapter if adapter.exists() else None


def start_model(context: Context, count: int, *, to_train: bool = False) -> PreTrainedModel:
    """Return the model after the first `count` training stages, adapters folded in (phi = 1).

    One that is `to_train` is divided among the ranks where `zero` says so (collective).
    """
    cfg = context.cfg
    divided = division_config(cfg.train, cfg.zero, context.ranks.world_size) if to_train else None
    folder = context.stage_folder("transplant")
    model = load_model(folder, cfg.model, cfg.train.precision, divided)
    for folder in _trained(context, count):
        apply_weights(model, [folder])
        if adapter := _adapter(folder):
            model = merge_adapter(attach_adapter(model, adapter), 1.0)
    return model


def open_adapter(context: Context) -> torch.nn.Module:
    """Return the model after the whole recipe, with the last stage's adapter not folded in.

    Where the last stage trained no adapter it is the plain model.
    """
    folders = _trained(context, len(context.cfg.recipe.adaptation))
    last = folders[-1] if folders else None
    if last is None or _adapter(last) is None:
        return start_model(context, len(folders)).to(device_of())
    model = start_model(context, len(folders) - 1)
    apply_weights(model, [last])
    return attach_adapter(model, last / "adapter").to(device_of())


def model_after(context: Context, point: str) -> PreTrainedModel:
    """Return the model at `point`: base, transplant, a training stage, or corrected."""
    cfg = context.cfg
    if point == "base":
        model = load_model(context.base, cfg.model, cfg.train.precision)
    elif point == "corrected":
        model = load_model(context.folder.model, cfg.model, cfg.train.precision)
    else:
        stages = ["transplant", *cfg.recipe.adaptation]
        model = start_model(context, stages.index(point))
    return model.to(device_of())
