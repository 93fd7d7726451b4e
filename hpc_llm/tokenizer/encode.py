"""Encodes text into token shards: Megatron's indexed format, read by DeepSpeed's data pipeline.

`PREFIX.bin` holds the ids, `PREFIX.idx` the offsets of the documents, `PREFIX.bytes.npy` the UTF-8
bytes of each document (for bits per byte and tokens per byte), `PREFIX.json` the vocabulary and
checksums (see `shard_files`). One entry is one document: BOS, ids, EOS (see `coder`).
"""

import contextlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpc_llm.errors import UserError
from hpc_llm.tokenizer.coder import Coder, sentencepiece_coder
from hpc_llm.tokenizer.shard_files import ENDINGS, describe_shards, part

__all__ = [
    "ShardCounts",
    "count_ids",
    "encode_shards",
    "open_shards",
    "shard_tokens",
    "write_shards",
]

BATCH_DOCUMENTS = 2_000
BATCH_CHARACTERS = 4_000_000
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


def write_shards(texts: Iterable[str], coder: Coder, prefix: Path) -> ShardCounts:
    """Write `texts` as token shards at `prefix`, in their order; replace existing shards.

    Ids take two bytes each for vocabularies below 65,500 tokens, else four. Raises `UserError`
    when there is no text. `PREFIX.json` is moved into place last and marks complete shards.
    """
    from deepspeed.runtime.data_pipeline.data_sampling.indexed_dataset import (
        MMapIndexedDatasetBuilder,
    )

    dtype = np.uint16 if coder.size < SMALL_VOCABULARY else np.int32
    prefix.parent.mkdir(parents=True, exist_ok=True)
    temporary = {ending: part(prefix, f"{ending}.tmp") for ending in (*ENDINGS, ".json")}
    try:
        builder = MMapIndexedDatasetBuilder(str(temporary[".bin"]), dtype=dtype)
        sizes: list[int] = []
        tokens = 0
        for batch in _batches(texts):
            for ids in coder.encode(batch):
                builder.add_item_numpy(np.array([*coder.front, *ids, *coder.end], dtype=dtype))
                builder.end_document()
                tokens += len(coder.front) + len(ids) + len(coder.end)
            sizes += [len(text.encode()) for text in batch]
        if not sizes:
            rule = "there is no text to encode"
            raise UserError(str(prefix), None, rule, "provide at least one document")
        builder.finalize(str(temporary[".idx"]))
        with temporary[".bytes.npy"].open("wb") as handle:
            np.save(handle, np.array(sizes, dtype=np.int32))
        describe_shards(temporary, coder.file, coder.size, temporary[".json"])
        part(prefix, ".json").unlink(missing_ok=True)
        for ending, path in temporary.items():
            path.replace(part(prefix, ending))
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
    return ShardCounts(documents=len(sizes), tokens=tokens, bytes=sum(sizes))


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield the texts in lists of at most 2,000 and about 4M characters; a longer one is alone."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and (len(batch) == BATCH_DOCUMENTS or characters + len(text) > BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch


def encode_shards(
    texts: Iterable[str],
    sentencepiece_model: Path,
    prefix: Path,
    threads: int = 2,
    fast: Any | None = None,
) -> ShardCounts:
    """Write `texts` as token shards of a sentencepiece vocabulary (see `sentencepiece_coder`)."""
    return write_shards(texts, sentencepiece_coder(sentencepiece_model, threads, fast), prefix)


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


def shard_tokens(prefix: Path) -> int:
    """Return the number of tokens in the shards at `prefix`."""
    dataset = open_shards(prefix)  # its sizes are valid while it lives
    return int(dataset.sizes.sum())


def count_ids(prefixes: Iterable[Path], vocab_size: int) -> np.ndarray:
    """Return how often each id occurs in the shards at `prefixes`, int64 (vocab_size,)."""
    seen = np.zeros(vocab_size, dtype=np.int64)
    for prefix in prefixes:
        dataset = open_shards(prefix)
        for at in range(0, len(dataset), BATCH_DOCUMENTS):
            ids = np.concatenate(dataset[at : at + BATCH_DOCUMENTS])
            seen += np.bincount(ids, minlength=vocab_size)
    return seen
