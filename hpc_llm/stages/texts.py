"""Paths of texts in a run folder, and reading them for evaluation."""

from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from hpc_llm.corpus import load_texts
from hpc_llm.pipeline.context import Context

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


def encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[str]], list[list[int]]]:
    """Return a function from texts to ids without special tokens."""

    def encode(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    return encode


def first_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token before a document: BOS, or EOS if the vocabulary has no BOS."""
    if tokenizer.bos_token_id is not None:
        return int(tokenizer.bos_token_id)
    return None if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id)
