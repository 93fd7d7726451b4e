"""The meter of a training stage: documents, tokenizer and the base model's bits per byte."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpc_llm.evaluation.bits_per_byte import bits_per_byte, document_nll
from hpc_llm.pipeline.context import Context
from hpc_llm.rundir import read_json, write_json
from hpc_llm.stages.assemble import model_at, tokenizer_at, vocabulary_rows
from hpc_llm.stages.texts import encoder, first_token, heldout
from hpc_llm.surgery.loading import load_tokenizer
from hpc_llm.training.meter import Meter
from hpc_llm.training.process_group import agreed, on_first_rank

__all__ = ["open_meter"]


def open_meter(context: Context, name: str) -> Meter | None:
    """Return the meter of the stage `train/<name>`; None if nothing is measured.

    Loads the base model once, before the model that is trained (collective). Its bits per byte are
    in meter.json of the stage for a start that resumes.
    """
    settings = context.cfg.evaluation.meter
    if settings.steps is None:
        return None
    texts = agreed(lambda: _spread(heldout(context, "source", "tune"), settings.documents))
    return Meter(
        steps=settings.steps,
        base=_of_base(context, name, texts),
        stop_above=settings.stop_above,
        measure=_measure(context, "transplant", texts),
    )


def _spread(texts: list[str], most: int) -> list[str]:
    """Return at most `most` texts, evenly spaced: those of several sources follow each other."""
    count = min(most, len(texts))
    return [texts[index * len(texts) // count] for index in range(count)]


def _of_base(context: Context, name: str, texts: list[str]) -> float:
    """Return the bits per byte of the base model (collective)."""
    file = context.stage_folder(f"train/{name}") / "meter.json"
    key = {"stage": context.stage(f"train/{name}").fingerprint, "documents": len(texts)}
    known = on_first_rank(lambda: _read(file, key))
    if known is not None:
        return known
    with model_at(context, "base") as model:
        found = _measure(context, "base", texts)(model)
    on_first_rank(lambda: _write(file, {**key, "base_bpb": found}))
    return found


def _read(file: Path, key: dict[str, Any]) -> float | None:
    """Return the value of an earlier start with the same `key`."""
    if not file.is_file():
        return None
    known = read_json(file)
    return float(known["base_bpb"]) if key.items() <= known.items() else None


def _write(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, content)


def _measure(context: Context, point: str, texts: list[str]) -> Callable[[torch.nn.Module], float]:
    """Return the function from a model to its bits per byte with the tokenizer at `point`.

    The function is collective. It encodes the texts once.
    """
    cfg = context.cfg
    tokenizer = load_tokenizer(tokenizer_at(context, point), cfg.model)
    sizes = np.array([len(text.encode()) for text in texts])

    @cache
    def encoded(rows: int) -> list[list[int]]:
        return encoder(tokenizer, cfg.tokenizer.special_strings, rows)(texts)

    def measure(model: torch.nn.Module) -> float:
        rows = vocabulary_rows(model)
        first = first_token(tokenizer, rows)
        return bits_per_byte(document_nll(model, encoded(rows), cfg.evaluation, first), sizes)

    return measure
