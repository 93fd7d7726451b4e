"""Assemble the model at a point of the recipe from the results of the stages."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from hpc_llm.accounting.model_file import read_config
from hpc_llm.distributed import say
from hpc_llm.methods import describe
from hpc_llm.pipeline.context import Context
from hpc_llm.pipeline.table import COMPOSED
from hpc_llm.planning.evaluation import is_partitioned
from hpc_llm.settings import RunConfig
from hpc_llm.surgery.loading import (
    apply_weights,
    build_model,
    full_shape,
    load_model,
    load_tokenizer,
)
from hpc_llm.surgery.merge import attach_adapter, merge_adapter
from hpc_llm.training.process_group import agreed, device_of
from hpc_llm.training.zero import division_config
from hpc_llm.training.zero_inference import gathered_by_layer, inference_division
from hpc_llm.vocabulary.padding import cut_broken_padding

__all__ = [
    "adapter_folder",
    "cut_padding",
    "has_adapter",
    "load_base",
    "model_at",
    "open_adapter",
    "start_model",
    "tokenizer_at",
    "trained_folders",
    "untrained_model",
    "vocabulary_rows",
    "whole_adapted",
]


def trained_folders(context: Context, name: str | None) -> list[Path]:
    """Return the folders of the stages that lead to the model after `name`; None: none."""
    names = [] if name is None else context.cfg.lineage(name)
    return [context.stage_folder(f"train/{name}") for name in names]


def adapter_folder(folder: Path) -> Path | None:
    """Return the adapter in the folder of a training stage; None: it trained none."""
    adapter = folder / "adapter"
    return adapter if adapter.exists() else None


def start_model(context: Context, name: str | None, *, to_train: bool = False) -> PreTrainedModel:
    """Return the model after the training stage `name`, with adapters merged (phi = 1).

    An adapter that cannot be merged stays attached. None is the transplanted model. With
    `to_train` the model is partitioned over the ranks if `zero` requires it (collective).
    """
    cfg = context.cfg
    divided = division_config(cfg.train, cfg.zero, context.ranks) if to_train else None
    return _after(context, trained_folders(context, name), divided)


def untrained_model(context: Context) -> PreTrainedModel:
    """Return a model of the shape of the transplanted one with untrained weights (collective)."""
    cfg = context.cfg
    divided = division_config(cfg.train, cfg.zero, context.ranks)
    architecture = read_config(context.stage_folder("transplant") / "config.json")
    return build_model(architecture, architecture["vocab_size"], cfg.seed, divided)


def _after(context: Context, folders: list[Path], divided: dict[str, Any] | None) -> Any:
    cfg = context.cfg
    model = load_model(context.stage_folder("transplant"), cfg.model, cfg.train.precision, divided)
    for folder in folders:
        apply_weights(model, [folder])
        if adapter := adapter_folder(folder):
            attached = attach_adapter(model, adapter)
            if describe(cfg.stages[folder.name].method).merges == "never":
                return attached  # always the last: `hpc_llm.pipeline.checks` rejects others
            model = merge_adapter(attached, 1.0)
    return model


def has_adapter(context: Context) -> bool:
    """Whether the last stage of the recipe trained an adapter."""
    folders = trained_folders(context, context.cfg.adaptation[-1]) if context.cfg.adaptation else []
    return bool(folders) and adapter_folder(folders[-1]) is not None


@contextmanager
def open_adapter(context: Context) -> Iterator[Any]:
    """Give `whole_adapted` for evaluation, as `model_at` does (collective)."""
    with _ready(context, lambda divided: whole_adapted(context, divided)) as model:
        yield model


def whole_adapted(context: Context, divided: dict[str, Any] | None = None) -> Any:
    """Return the model after the whole recipe, with the adapter of the last stage unmerged.

    Return the plain model if the last stage trained no adapter. `divided` partitions it
    (collective).
    """
    last = context.cfg.adaptation[-1] if context.cfg.adaptation else None
    folders = trained_folders(context, last)
    adapter = adapter_folder(folders[-1]) if folders else None

    if adapter is None:
        return _after(context, folders, divided)
    model = _after(context, folders[:-1], divided)
    apply_weights(model, [folders[-1]])
    return attach_adapter(model, adapter)


def load_base(context: Context, divided: dict[str, Any] | None = None) -> PreTrainedModel:
    """Return the base model, without rows beyond its tokens if these are NaN or infinite.

    A model partitioned by `divided` keeps its rows.
    """
    settings = context.cfg.model
    model = load_model(context.base, settings, context.cfg.train.precision, divided)
    if divided is None:
        cut_padding(context, model)
    return model


def cut_padding(context: Context, model: PreTrainedModel) -> None:
    """Cut off the rows of the base model beyond its tokens if one is NaN or infinite; say so."""
    if cut := cut_broken_padding(model, load_tokenizer(context.base, context.cfg.model)):
        say(f"{context.base}: {cut} rows beyond the tokens are NaN or infinite, and cut off")


@contextmanager
def model_at(context: Context, point: str) -> Iterator[Any]:
    """Give the model at `point` (base, transplant, a training stage, corrected or composed).

    Collective: every rank has it on its device, or a part of it (`evaluation.partition`).
    """
    cfg = context.cfg

    def build(divided: dict[str, Any] | None) -> Any:
        if point == "base":
            return load_base(context, divided)
        if point in ("corrected", COMPOSED):
            whole = context.folder.model if point == "corrected" else tokenizer_at(context, point)
            return load_model(whole, cfg.model, cfg.train.precision, divided)
        return _after(
            context, trained_folders(context, None if point == "transplant" else point), divided
        )

    with _ready(context, build) as model:
        yield model


def tokenizer_at(context: Context, point: str) -> Path | str:
    """Return the folder (or hub id) of the tokenizer of the model at `point`."""
    if point == "base":
        return context.base
    return context.stage_folder("compose/model" if point == COMPOSED else "tokenizer")


@contextmanager
def _ready(
    context: Context, build: Callable[[dict[str, Any] | None], Any]
) -> Iterator[torch.nn.Module]:
    """Give the model that `build` returns, ready for forward passes (collective).

    `build` gets the configuration that partitions the model, or None.
    """
    cfg, ranks = context.cfg, context.ranks
    if not is_partitioned(cfg, ranks.world_size, _memory_gib(cfg)):
        yield agreed(lambda: build(None).to(device_of()))
        return
    division = inference_division(cfg.train, cfg.zero, ranks)
    model = build(division)
    with gathered_by_layer(model, division):
        yield model


def _memory_gib(cfg: RunConfig) -> float | None:
    """Return the memory of a GPU of this run; None on CPUs."""
    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(device_of()).total_memory / 2**30
    return cfg.hardware.memory_gib or found


def vocabulary_rows(model: torch.nn.Module) -> int:
    """Return the rows of the input embedding, also of a partitioned model."""
    return full_shape(model.get_input_embeddings().weight)[0]
