"""Encodes text into token shards: Megatron's indexed format, read by DeepSpeed's data pipeline.

`PREFIX.bin` holds the ids, `PREFIX.idx` the offsets of the documents, `PREFIX.bytes.npy` the UTF-8
bytes of each document (for bits per byte and tokens per byte), `PREFIX.json` the vocabulary and
checksums (see `shard_files`). One entry is one document: BOS, ids, EOS. Sentencepiece encodes,
several times as fast as the transformers tokenizer, with the same ids.
"""

import contextlib
import io
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hpc_llm.errors import UserError
from hpc_llm.tokenizer.sample import as_sentencepiece, chunks_of
from hpc_llm.tokenizer.shard_files import ENDINGS, describe_shards, part
from hpc_llm.tokenizer.specials import ONE_PIECE
from hpc_llm.tokenizer.text import Encode, special_strings, text_encoder

__all__ = ["ShardCounts", "encode_shards", "frame_ids", "open_shards"]

BATCH_DOCUMENTS = 2_000
SMALL_VOCABULARY = 65_500  # below it an id fits uint16; the bound that DeepSpeed and Megatron use


@dataclass(frozen=True, kw_only=True)
class ShardCounts:
    """Size of a set of shards."""

    documents: int
    """Entries of the shards."""
    tokens: int
    """Token ids, BOS and EOS included."""
    bytes: int
    """UTF-8 bytes of the text."""


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


def encode_shards(
    texts: Iterable[str],
    sentencepiece_model: Path,
    prefix: Path,
    threads: int = 2,
    fast: Any | None = None,
) -> ShardCounts:
    """Write `texts` as token shards at `prefix`, in their order; replace existing shards.

    Strings of special tokens in the texts are letters; with `fast`, the exported tokenizer of the
    vocabulary, they are its special tokens (`tokenizer.special_strings`).
    Ids take two bytes each for vocabularies below 65,500 tokens, else four. Raises `UserError`
    when there is no text. `PREFIX.json` is moved into place last and marks complete shards.
    """
    import sentencepiece
    from deepspeed.runtime.data_pipeline.data_sampling.indexed_dataset import (
        MMapIndexedDatasetBuilder,
    )

    processor = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))
    bos, eos = frame_ids(processor)
    dtype = np.uint16 if len(processor) < SMALL_VOCABULARY else np.int32
    prefix.parent.mkdir(parents=True, exist_ok=True)
    temporary = {ending: part(prefix, f"{ending}.tmp") for ending in (*ENDINGS, ".json")}
    try:
        builder = MMapIndexedDatasetBuilder(str(temporary[".bin"]), dtype=dtype)
        sizes: list[int] = []
        tokens = 0
        encode = _encoder(processor, threads, fast)
        stream = iter(texts)
        while batch := list(islice(stream, BATCH_DOCUMENTS)):
            for ids in encode(batch):
                builder.add_item_numpy(np.array([bos, *ids, eos], dtype=dtype))
                builder.end_document()
                tokens += len(ids) + 2
            sizes += [len(text.encode()) for text in batch]
        if not sizes:
            rule = "there is no text to encode"
            raise UserError(str(prefix), None, rule, "provide at least one document")
        builder.finalize(str(temporary[".idx"]))
        with temporary[".bytes.npy"].open("wb") as handle:
            np.save(handle, np.array(sizes, dtype=np.int32))
        describe_shards(temporary, sentencepiece_model, len(processor), temporary[".json"])
        part(prefix, ".json").unlink(missing_ok=True)
        for ending, path in temporary.items():
            path.replace(part(prefix, ending))
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
    return ShardCounts(documents=len(sizes), tokens=tokens, bytes=sum(sizes))


def open_shards(prefix: Path) -> Any:
    """Return the `MMapIndexedDataset` at `prefix`: `dataset[i]` is the ids of document i.

    The file is memory-mapped without a warm-up read. An entry is a view into it, valid only while
    the dataset lives: copy what outlives it. Raises `FileNotFoundError` where there is none.
    """
    if not part(prefix, ".idx").exists():
        raise FileNotFoundError(f"{prefix}.idx: no token shards here; encode the corpus first")
    from deepspeed.runtime.data_pipeline.data_sampling.indexed_dataset import MMapIndexedDataset

    with contextlib.redirect_stdout(io.StringIO()):  # it prints each of its steps
        return MMapIndexedDataset(str(prefix), skip_warmup=True)
