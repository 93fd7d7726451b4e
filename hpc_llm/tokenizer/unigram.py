"""Trains the vocabulary: Kudo's unigram language model (2018, arXiv 1804.10959), sentencepiece.

Settings that would lose text are not options. The text is not normalised; spaces are kept, single
or in runs; no space is prepended; newline and tab are tokens of their own that no other token
spans; digits are split; and characters without a token fall back to bytes. So
`decode(encode(text)) == text` for every text, with the exported tokenizer also for U+2581,
sentencepiece's sign for a space (see `sample.LITERAL`).
"""

import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpc_llm.distributed import available_bytes
from hpc_llm.errors import UserError
from hpc_llm.settings import TokenizerSettings
from hpc_llm.settings.tokenizer import SMALLEST_VOCABULARY
from hpc_llm.tokenizer.sample import CHUNK_CHARACTERS, as_sentencepiece, draw
from hpc_llm.tokenizer.specials import ONE_PIECE, SpecialTokens

__all__ = ["MODEL_NAME", "train_vocabulary"]

MODEL_NAME = "tokenizer.model"
LOSSLESS: dict[str, Any] = {
    "byte_fallback": True,
    "split_digits": True,
    "required_chars": "0123456789",
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "add_dummy_prefix": False,
    "allow_whitespace_only_pieces": True,
    "user_defined_symbols": ["\n", "\t"],
    "max_sentence_length": 4 * CHUNK_CHARACTERS,  # bytes; longer ones are skipped silently
}
RESERVED, STAND_IN = "\u2585", "\u2584"
"""The trainer silently skips text that contains U+2585, its sign for unknown characters, and no
other character (sentencepiece 0.2.3: tried with the whole basic plane, after `corpus.clean`). So
another block element stands in for it in the training text; encoding spells it with byte tokens."""
LARGE_CHARACTERS = 2**30
"""From here on the trainer counts in 64 bits; 32 overflow at 2^31 (sentencepiece issue 405)."""
PARTS = 16
"""The trainer splits its sums into this many parts, on any number of cores. The vocabulary depends
on the number of parts (in floating point a + (b + c) != (a + b) + c), so it must not vary."""
SCORE_STEPS = 256
"""Scores (log-probabilities) are rounded to 1/256. Sums of them up to 65,536 are then exact in 32
and in 64 bits, so that sentencepiece and the transformers tokenizer agree on every text; unrounded
they differ in nearly tied words (about one Russian text of 3,000 characters in 1,500)."""
BYTES_PER_CHARACTER = 40
"""Memory of the trainer. Measured on Russian prose (sentencepiece 0.2.3, 32,768 tokens): 39 at
4 M characters, 37 at 16 M. Sentencepiece issue 702 reports 70 GB for 10 M sentences."""


def _require_memory(characters: int, available: int | None, cause: str = "free memory") -> None:
    """Raise `UserError` when training on `characters` would be killed for lack of memory.

    `cause` is what limits `available`.
    """
    needed = characters * BYTES_PER_CHARACTER
    if available is not None and needed > available:
        most = available // BYTES_PER_CHARACTER
        rule = (
            f"{characters:,} characters need about {needed / 2**30:.1f} GiB of memory, "
            f"{available / 2**30:.1f} GiB are available ({cause})"
        )
        less = f"use tokenizer.max_characters={most} or less, or " if most else "use "
        fix = f"{less}a node with more memory or a higher limit"
        raise UserError("tokenizer.max_characters", None, rule, fix)


@contextmanager
def _on_cores(count: int) -> Iterator[None]:
    """Pin threads that start in the block to at most `count` cores."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _special_arguments(specials: SpecialTokens) -> dict[str, Any]:
    """Return the trainer's arguments that define one control token for each special string."""
    arguments: dict[str, Any] = {"unk_id": 0, "unk_piece": specials.unk_piece}
    taken = [specials.unk_piece]
    bos = None if specials.bos == specials.eos else specials.bos
    for role, token in (("bos", bos), ("eos", specials.eos), ("pad", specials.pad)):
        if token is None or token in taken or ONE_PIECE.fullmatch(token):
            arguments[f"{role}_id"] = -1
        else:
            arguments |= {f"{role}_id": len(taken), f"{role}_piece": token}
            taken.append(token)
    return arguments | {"control_symbols": [t for t in specials.markers if t not in taken]}


def _explain(error: RuntimeError, settings: TokenizerSettings) -> UserError:
    """Return a `UserError` for the trainer's message."""
    message, size = str(error), settings.vocab_size
    if found := re.search(r"Vocabulary size too high.*<= (\d+)", message):
        most = int(found[1])
        less = f"use tokenizer.vocab_size={most} or " if most >= SMALLEST_VOCABULARY else ""
        rule = f"the text supports at most {most} tokens"
        return UserError("tokenizer.vocab_size", size, rule, f"{less}add text")
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        rule = (
            f"the characters of the text, the bytes and the special tokens alone need {found[1]} "
            "tokens"
        )
        return UserError("tokenizer.vocab_size", size, rule, "use a larger one")
    rule = f"sentencepiece cannot train on this text ({' '.join(message.split())})"
    return UserError("tokenizer", None, rule, "check the special tokens of the base and the text")


def _finish(model: bytes, specials: SpecialTokens) -> bytes:
    """Return the model with its scores rounded to 1/256 (those of BPE are whole) and its roles.

    A role that is a piece of text is named only here: the trainer takes control tokens only.
    """
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    for piece in proto.pieces:
        piece.score = round(piece.score * SCORE_STEPS) / SCORE_STEPS
    for role, token in (("bos", specials.bos), ("eos", specials.eos), ("pad", specials.pad)):
        if token is not None and ONE_PIECE.fullmatch(token):
            setattr(proto.trainer_spec, f"{role}_piece", token)
    return proto.SerializeToString(deterministic=True)


def _trainable(chunk: str) -> str:
    return as_sentencepiece(chunk).replace(RESERVED, STAND_IN)


def _training_text(
    target_texts: Iterable[str], source_texts: Iterable[str], settings: TokenizerSettings, seed: int
) -> list[str]:
    """Return the chunks to train on; `source_share` of their characters are source text."""
    share, most = settings.source_share, settings.max_characters
    target = draw(target_texts, round(most * (1 - share)), seed)
    characters = sum(map(len, target))
    source_most = most if share == 1 else round(characters * share / (1 - share))
    return target + draw(source_texts, source_most, seed)


def train_vocabulary(
    target_texts: Iterable[str],
    source_texts: Iterable[str],
    settings: TokenizerSettings,
    specials: SpecialTokens,
    seed: int,
    folder: Path,
) -> Path:
    """Train a vocabulary of exactly `settings.vocab_size` tokens; return `folder/tokenizer.model`.

    Equal texts, settings and seed give equal bytes for any `settings.threads`. Raises `UserError`
    when the text supports fewer tokens, or when there is not enough memory.
    """
    import sentencepiece

    chunks = _training_text(target_texts, source_texts, settings, seed)
    characters = sum(map(len, chunks))
    if not characters:
        rule = "there is no text to train a vocabulary on"
        raise UserError("tokenizer", None, rule, "set corpus.target")
    _require_memory(characters, *available_bytes(os.environ, threads=PARTS))
    model = io.BytesIO()
    try:
        with _on_cores(settings.threads):
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=map(_trainable, chunks),
                model_writer=model,
                model_type=settings.model_type,
                vocab_size=settings.vocab_size,
                max_sentencepiece_length=settings.max_piece_characters,
                hard_vocab_limit=True,  # exactly that size, or an error with the largest one
                num_threads=PARTS,
                train_extremely_large_corpus=characters >= LARGE_CHARACTERS,
                minloglevel=2,
                **LOSSLESS,
                **_special_arguments(specials),
            )
    except RuntimeError as error:
        raise _explain(error, settings) from error
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODEL_NAME
    path.write_bytes(_finish(model.getvalue(), specials))
    return path
