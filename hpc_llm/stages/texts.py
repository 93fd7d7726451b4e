"""Paths of texts in a run folder, and reading them for evaluation."""

from pathlib import Path

from hpc_llm.corpus import load_texts
from hpc_llm.pipeline.context import Context
from hpc_llm.tokenizer.text import first_token
from hpc_llm.tokenizer.text import text_encoder as encoder

__all__ = ["encoder", "first_token", "heldout", "text_file"]


def text_file(context: Context, text: str, part: str) -> Path:
    """Return the file of a text (target, source, ...) and part (train, tune, test)."""
    return context.stage_folder("corpus") / text / f"{part}.jsonl"


def heldout(context: Context, language: str, part: str) -> list[str]:
    """Load held-out documents up to `evaluation.<part>_bytes`, at least one.

    Return [] if the run has no text in that language.
    """
    path = text_file(context, language, part)
    limit: int = getattr(context.cfg.evaluation, f"{part}_bytes")
    texts: list[str] = []
    size = 0
    for text in load_texts(path) if path.exists() else []:
        size += len(text.encode())
        if texts and size > limit:
            break
        texts.append(text)
    return texts
