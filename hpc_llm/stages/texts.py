"""Paths of texts in a run folder, and reading them for evaluation."""

from pathlib import Path

from hpc_llm.corpus import read_texts
from hpc_llm.evaluation.segments import Heldout, select
from hpc_llm.pipeline.context import Context
from hpc_llm.settings.corpus import LANGUAGES
from hpc_llm.tokenizer.text import first_token
from hpc_llm.tokenizer.text import text_encoder as encoder

__all__ = ["encoder", "first_token", "heldout", "heldout_note", "text_file"]


def text_file(context: Context, text: str, part: str) -> Path:
    """Return the file of a text (target, source, ...) and part (train, tune, test)."""
    return context.stage_folder("corpus") / text / f"{part}.jsonl"


def heldout(context: Context, language: str, part: str) -> list[str]:
    """Load held-out documents up to `evaluation.<part>_bytes`, or segments of them (`select`).

    Return [] if the run has no text in that language.
    """
    return _select(context, language, part).texts


def heldout_note(context: Context, part: str) -> str:
    """Return what of the held-out documents was cut, to append to a log line; empty: nothing."""
    notes = {language: _select(context, language, part).note for language in LANGUAGES}
    return "".join(f"; {language}: {note}" for language, note in notes.items() if note)


def _select(context: Context, language: str, part: str) -> Heldout:
    path = text_file(context, language, part)
    documents = read_texts(path) if path.exists() else iter(())
    return select(documents, getattr(context.cfg.evaluation, f"{part}_bytes"))
