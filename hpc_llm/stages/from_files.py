"""The base model and the final model as files: their layers are never in memory as a whole."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hpc_llm.pipeline.context import Context
from hpc_llm.stages.assemble import adapter_folder, cut_padding, trained_folders
from hpc_llm.surgery.loading import load_tokenizer
from hpc_llm.surgery.merged import Change, save_merged
from hpc_llm.surgery.outline import Outline, open_outline
from hpc_llm.surgery.shards import StoredWeights
from hpc_llm.vocabulary.modes import mode_of

__all__ = ["open_base", "tokenizer_to_save", "write_final"]


def open_base(context: Context) -> Outline:
    """Return the base model as `load_base` does, with input embedding and LM head alone in memory.

    Raises `NotStreamed` where that is not possible.
    """
    outline = open_outline(context.base, context.cfg.model, context.cfg.train.precision)
    outline.load_ends()
    cut_padding(context, outline.model)
    return outline


def write_final(context: Context, phi: float | None, folder: Path) -> None:
    """Write the model after the whole recipe, its last adapter merged with `phi`, from files.

    Raises `NotStreamed`, before anything is written, where that is not possible.
    """
    cfg = context.cfg
    folders = trained_folders(context, cfg.adaptation[-1] if cfg.adaptation else None)
    changes = [Change(StoredWeights(one), adapter_folder(one), 1.0) for one in folders]
    if phi is not None:
        changes[-1] = replace(changes[-1], phi=phi)
    outline = open_outline(context.stage_folder("transplant"), cfg.model, cfg.train.precision)
    save_merged(outline, changes, tokenizer_to_save(context), folder)


def tokenizer_to_save(context: Context) -> Any:
    """Return the tokenizer for the model folders of the run, as `save_model` takes it.

    That of the base model is copied unchanged: its folder is returned.
    """
    folder = context.stage_folder("tokenizer")
    return load_tokenizer(folder, context.cfg.model) if mode_of(context.cfg).changes else folder
