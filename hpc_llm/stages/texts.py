"""Paths of texts in a run folder, reading them for training and for evaluation."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from hpc_llm.corpus import read_texts
from hpc_llm.evaluation.segments import Heldout, select
from hpc_llm.pipeline.context import Context
from hpc_llm.settings.corpus import LANGUAGES
from hpc_llm.tokenizer.encode import shard_tokens
from hpc_llm.tokenizer.sample import MixedTexts
from hpc_llm.tokenizer.text import first_token
from hpc_llm.tokenizer.text import text_encoder as encoder

__all__ = [
    "encoder",
    "first_token",
    "heldout",
    "heldout_note",
    "shares_of",
    "text_file",
    "training_text",
]


def text_file(context: Context, text: str, part: str) -> Path:
    """Return the file of a text (target, source, ...) and part (train, tune, test)."""
    return context.stage_folder("corpus") / text / f"{part}.jsonl"


def training_text(context: Context, language: str) -> Iterable[str]:
    """Return the training documents in target or source; [] if the run has no such text.

    Those of several sources are sampled in their shares. Sizes are then those of their files: the
    tokens are not known before the vocabulary.
    """
    texts = context.cfg.corpus.texts_in(language)
    files = {text: text_file(context, text, "train") for text in texts}
    if not context.cfg.corpus.sources:
        return MixedTexts([(1.0, read_texts(file)) for file in files.values() if file.exists()])
    shares = context.cfg.corpus.shares(partial(_file_bytes, context))
    whole = sum(shares[text] for text in texts)
    return MixedTexts([(shares[text] / whole, read_texts(file)) for text, file in files.items()])


def shares_of(context: Context, stage: str, shards: Path | None = None) -> dict[str, float]:
    """Return the share of the tokens of each text of a training stage.

    Sizes are the tokens of the texts in the folder `shards`, or else the bytes of their files.
    """
    if shards is None:
        return context.cfg.text_of(stage).shares(partial(_file_bytes, context))
    return context.cfg.text_of(stage).shares(lambda text: shard_tokens(shards / text))


def _file_bytes(context: Context, text: str) -> int:
    return text_file(context, text, "train").stat().st_size


def heldout(context: Context, name: str, part: str) -> list[str]:
    """Load held-out documents up to `evaluation.<part>_bytes`, or segments of them (`select`).

    `name` is a text, or target or source: the documents of all sources in these languages. Tune
    documents of several sources share the limit. Return [] if the run has no such text.
    """
    return [text for found in _select(context, name, part).values() for text in found.texts]


def heldout_note(context: Context, part: str) -> str:
    """Return what of the held-out documents was cut, to append to a log line; empty: nothing."""
    found = [item for name in LANGUAGES for item in _select(context, name, part).items()]
    return "".join(f"; {name}: {selected.note}" for name, selected in found if selected.note)


def _select(context: Context, name: str, part: str) -> dict[str, Heldout]:
    """Return the held-out documents of each text that `name` stands for."""
    names = context.cfg.corpus.texts_in(name) if name in LANGUAGES else [name]
    most = getattr(context.cfg.evaluation, f"{part}_bytes")
    if part == "tune":
        most = max(1, most // max(1, len(names)))
    files = {text: text_file(context, text, part) for text in names}
    return {text: select(read_texts(file), most) for text, file in files.items() if file.exists()}
