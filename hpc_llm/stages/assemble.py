"""Assemble the model at a point of the recipe from the results of the stages."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from hpc_llm.distributed import say
from hpc_llm.methods import describe
from hpc_llm.pipeline.context import Context
from hpc_llm.surgery.loading import apply_weights, load_model, load_tokenizer
from hpc_llm.surgery.merge import attach_adapter, merge_adapter
from hpc_llm.training.process_group import device_of
from hpc_llm.training.zero import division_config
from hpc_llm.vocabulary.padding import cut_broken_padding

__all__ = ["load_base", "model_after", "open_adapter", "start_model"]


def _trained(context: Context, name: str | None) -> list[Path]:
    """Return the folders of the stages that lead to the model after `name`; None: none."""
    names = [] if name is None else context.cfg.lineage(name)
    return [context.stage_folder(f"train/{name}") for name in names]


def _adapter(folder: Path) -> Path | None:
    adapter = folder / "adapter"
    return adapter if adapter.exists() else None


def start_model(context: Context, name: str | None, *, to_train: bool = False) -> PreTrainedModel:
    """Return the model after the training stage `name`, with adapters merged (phi = 1).

    An adapter that cannot be merged stays attached. None is the transplanted model. With
    `to_train` the model is partitioned over the ranks if `zero` requires it (collective).
    """
    return _after(context, _trained(context, name), to_train=to_train)


def _after(context: Context, folders: list[Path], *, to_train: bool = False) -> Any:
    cfg = context.cfg
    divided = division_config(cfg.train, cfg.zero, context.ranks.world_size) if to_train else None
    model = load_model(context.stage_folder("transplant"), cfg.model, cfg.train.precision, divided)
    for folder in folders:
        apply_weights(model, [folder])
        if adapter := _adapter(folder):
            attached = attach_adapter(model, adapter)
            if describe(cfg.stages[folder.name].method).merges == "never":
                return attached  # always the last: `hpc_llm.pipeline.checks` rejects others
            model = merge_adapter(attached, 1.0)
    return model


def open_adapter(context: Context) -> torch.nn.Module:
    """Return the model after the whole recipe, with the adapter of the last stage unmerged.

    Return the plain model if the last stage trained no adapter.
    """
    last = context.cfg.adaptation[-1] if context.cfg.adaptation else None
    folders = _trained(context, last)
    adapter = _adapter(folders[-1]) if folders else None
    if adapter is None:
        return _after(context, folders).to(device_of())
    model = _after(context, folders[:-1])
    apply_weights(model, [folders[-1]])
    return attach_adapter(model, adapter).to(device_of())


def load_base(context: Context) -> PreTrainedModel:
    """Return the base model, without rows beyond its tokens if these are NaN or infinite."""
    settings = context.cfg.model
    model = load_model(context.base, settings, context.cfg.train.precision)
    if cut := cut_broken_padding(model, load_tokenizer(context.base, settings)):
        say(f"{context.base}: {cut} rows beyond the tokens are NaN or infinite, and cut off")
    return model


def model_after(context: Context, point: str) -> PreTrainedModel:
    """Return the model at `point`: base, transplant, a training stage, or corrected."""
    cfg = context.cfg
    if point == "base":
        model = load_base(context)
    elif point == "corrected":
        model = load_model(context.folder.model, cfg.model, cfg.train.precision)
    else:
        model = start_model(context, None if point == "transplant" else point)
    return model.to(device_of())
