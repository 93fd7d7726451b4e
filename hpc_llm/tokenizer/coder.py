"""Encoders of the training text: what writes documents as token ids into shards.

A vocabulary that sentencepiece trained is encoded by sentencepiece, several times as fast as the
transformers tokenizer, with the same ids; any other by its own transformers tokenizer.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hpc_llm.tokenizer.sample import as_sentencepiece, chunks_of
from hpc_llm.tokenizer.specials import ONE_PIECE
from hpc_llm.tokenizer.text import Encode, first_token, special_strings, text_encoder

__all__ = ["Coder", "frame_ids", "sentencepiece_coder", "tokenizer_coder"]


@dataclass(frozen=True, kw_only=True)
class Coder:
    """From documents to token ids."""

    encode: Encode
    """Texts to ids, without BOS and EOS."""
    front: tuple[int, ...]
    """Ids before a document: BOS, or EOS without a BOS token."""
    end: tuple[int, ...]
    """Ids after a document: EOS, or BOS without an EOS token."""
    size: int
    """Embedding rows that the ids need."""
    file: Path
    """The file of the vocabulary, which identifies it."""


def frame_ids(processor: Any) -> tuple[int, int]:
    """Return the ids (BOS, EOS) around a document; without a BOS token, EOS is used for both.

    Sentencepiece reports -1 for a role that is a piece of text: that piece is looked up.
    """
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(processor.serialized_model_proto())
    pieces = (model.trainer_spec.bos_piece, model.trainer_spec.eos_piece)
    bos, eos = (
        processor.piece_to_id(piece) if index < 0 and ONE_PIECE.fullmatch(piece) else index
        for index, piece in zip((processor.bos_id(), processor.eos_id()), pieces, strict=True)
    )
    return (eos if bos < 0 else bos), eos


def sentencepiece_coder(model_file: Path, threads: int = 2, fast: Any | None = None) -> Coder:
    """Return the coder of a sentencepiece vocabulary that the run trained.

    Strings of special tokens in the texts are letters; with `fast`, the exported tokenizer of the
    vocabulary, they are its special tokens (`tokenizer.special_strings`).
    """
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    bos, eos = frame_ids(processor)
    encode = _encoder(processor, threads, fast)
    return Coder(encode=encode, front=(bos,), end=(eos,), size=len(processor), file=model_file)


def tokenizer_coder(tokenizer: Any, file: Path, rows: int, special: str) -> Coder:
    """Return the coder of a transformers tokenizer for a model of `rows` embeddings.

    `file` is its vocabulary file, `special` is `tokenizer.special_strings`. Its threads are those
    of the `tokenizers` library: one for each core of the process.
    """
    first, eos = first_token(tokenizer, rows), tokenizer.eos_token_id
    last = first if eos is None or eos >= rows else eos
    front, end = (() if index is None else (index,) for index in (first, last))
    encode = text_encoder(tokenizer, special, rows)
    return Coder(encode=encode, front=front, end=end, size=rows, file=file)


def _encode_batch(processor: Any, texts: list[str], threads: int) -> Iterator[list[int]]:
    """Yield the ids of each text, special strings as letters; long texts are encoded in chunks.

    Sentencepiece sums scores in 32-bit floats, which are exact only up to 65,536 (see
    `unigram.SCORE_STEPS`): some tens of thousands of characters. Chunks give the same ids.
    """
    chunks = [list(chunks_of(as_sentencepiece(text))) for text in texts]
    encoded = iter(processor.encode([c for parts in chunks for c in parts], num_threads=threads))
    for parts in chunks:
        yield [token for ids in islice(encoded, len(parts)) for token in ids]


def _encoder(processor: Any, threads: int, fast: Any | None) -> Encode:
    """Return the function from texts to ids; with `fast`, special strings become its tokens."""

    def letters(texts: list[str]) -> list[list[int]]:
        return list(_encode_batch(processor, texts, threads))

    if fast is None:
        return letters
    tokens, search = text_encoder(fast, "tokens"), _search(special_strings(fast))

    def encode(texts: list[str]) -> list[list[int]]:
        found = [search(text) is not None for text in texts]
        with_tokens = iter(tokens([text for text, has in zip(texts, found, strict=True) if has]))
        plain = iter(letters([text for text, has in zip(texts, found, strict=True) if not has]))
        return [next(with_tokens if has else plain) for has in found]

    return encode


def _search(strings: Collection[str]) -> Callable[[str], Any]:
    """Return the search for the first of `strings` in a text."""
    return re.compile("|".join(map(re.escape, sorted(strings))) or r"(?!)").search
