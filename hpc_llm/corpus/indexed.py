"""Text of token files in Megatron's indexed format: `NAME.idx` beside `NAME.bin`.

Training corpora often exist only as the ids of a model's tokenizer. Their text is decoded again, so
they are cleaned, deduplicated, held out and mixed like any other file. The index has the magic
`MMIDIDX`, a version, a code of the type of ids, the numbers of sequences and of document bounds;
then tokens (int32) and byte offset in `.bin` (int64) of each sequence, and the first sequence of
each document (int64). Megatron and DeepSpeed number their types differently, so the width of an id
follows from the size of `.bin`. Special tokens are no text and are dropped.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hpc_llm.errors import UserError

__all__ = ["INDEX", "files_behind", "read_indexed"]

INDEX = ".idx"
"""Ending of an index."""

MAGIC, HEADER = b"MMIDIDX\x00\x00", struct.Struct("<9sQBQQ")
VERSION = 1
WIDTHS = {1: np.uint8, 2: np.uint16, 4: np.int32, 8: np.int64}
"""Types of ids by their bytes: an id is never so large that the sign of the type matters."""
KEY = "corpus.ids_tokenizer"
BATCH = 1000  # documents decoded at a time
TRIED, LEAST_EQUAL = 100, 0.9
"""Documents at the start that are encoded again, and the share of them that must be equal."""


def files_behind(path: Path, folder: str | None) -> list[Path]:
    """Return the files on which the text of the index `path` depends beside it.

    Raises `UserError` if there is none of its ids, or no tokenizer in `folder`.
    """
    return [_bin_file(path), _tokenizer_file(folder, path)]


def _bin_file(path: Path) -> Path:
    file = path.with_suffix(".bin")
    if not file.is_file():
        rule, fix = f"no such file beside {path.name}", "copy both files"
        raise UserError(str(file), rule=rule, fix=fix)
    return file


def _tokenizer_file(folder: str | None, path: Path) -> Path:
    """Return the `tokenizer.json` that decodes the ids of `path`. Raises `UserError` without it."""
    fix = "set it to the folder of the tokenizer that encoded them, such as that of the base model"
    if folder is None:
        raise UserError(KEY, "null", f"{path} holds token ids", fix)
    file = Path(folder).expanduser() / "tokenizer.json"
    if not file.is_file():
        raise UserError(KEY, folder, "has no tokenizer.json", fix)
    return file


def read_indexed(path: Path, folder: str | None) -> Iterator[str]:
    """Yield the text of each document of `path`, decoded by the tokenizer in `folder`.

    Raises `UserError` for damaged files, and for a tokenizer that does not give these ids for this
    text.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_tokenizer_file(folder, path)))
    special = [i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    documents = _documents(path)
    tried = 0
    while batch := list(islice(documents, BATCH)):
        _check_ids(path, batch, tokenizer.get_vocab_size(), folder)
        ids = [own[~np.isin(own, special)].tolist() for own in batch]
        texts = tokenizer.decode_batch(ids, skip_special_tokens=False)
        if not tried:
            tried = min(TRIED, len(texts))
            _check_tokenizer(path, tokenizer, ids[:tried], texts[:tried], folder)
        yield from texts


def _documents(path: Path) -> Iterator[np.ndarray]:
    """Yield the ids of each document."""
    sizes, offsets, bounds = _index(path)
    width = _width(path, sizes)
    ids = np.memmap(_bin_file(path), WIDTHS[width], "r") if sizes.sum() else np.zeros(0, np.int64)
    for first, end in pairwise(bounds):
        begins = offsets[first:end] // width
        parts = [ids[at : at + n] for at, n in zip(begins, sizes[first:end], strict=True)]
        yield np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


def _index(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return tokens and byte offsets of the sequences, and the bounds of documents (n + 1,)."""
    rule, fix = "is no index of Megatron's format (MMIDIDX, version 1)", "give files of that format"
    if path.stat().st_size < HEADER.size:
        raise UserError(str(path), rule=rule, fix=fix)
    data = np.memmap(path, np.uint8, "r")
    magic, version, _, sequences, count = HEADER.unpack(data[: HEADER.size].tobytes())
    if (magic, version) != (MAGIC, VERSION):
        raise UserError(str(path), rule=rule, fix=fix)
    needed = HEADER.size + 12 * sequences + 8 * count
    if len(data) < needed:
        rule = f"has {len(data):,} bytes; its header announces {needed:,}"
        raise UserError(str(path), rule=rule, fix="copy the file again")
    at = HEADER.size
    sizes = np.frombuffer(data, "<i4", sequences, at)
    offsets = np.frombuffer(data, "<i8", sequences, at + 4 * sequences)
    bounds = np.frombuffer(data, "<i8", count, at + 12 * sequences)
    if not _is_ascending(bounds, sequences):
        rule = "its bounds of documents do not ascend to the number of its sequences"
        raise UserError(str(path), rule=rule, fix="write the file again")
    return sizes, offsets, bounds


def _is_ascending(bounds: np.ndarray, sequences: int) -> bool:
    whole = len(bounds) > 0 and bounds[0] == 0 and bounds[-1] == sequences
    return bool(whole and (np.diff(bounds) >= 0).all())


def _width(path: Path, sizes: np.ndarray) -> int:
    """Return the bytes of an id. Raises `UserError` if the files do not fit each other."""
    file, fix = _bin_file(path), "copy both files again"
    size, tokens = file.stat().st_size, int(sizes.sum())
    width = size // tokens if tokens else 1
    if width not in WIDTHS or width * tokens != size or (sizes < 0).any():
        rule = f"has {size:,} bytes, which are no whole ids of the {tokens:,} in {path.name}"
        raise UserError(str(file), rule=rule, fix=fix)
    return width


def _check_ids(path: Path, batch: Sequence[np.ndarray], size: int, folder: str | None) -> None:
    highest = max((int(ids.max()) for ids in batch if len(ids)), default=0)
    lowest = min((int(ids.min()) for ids in batch if len(ids)), default=0)
    if lowest < 0 or highest >= size:
        rule = f"has {size:,} tokens; {path} has ids from {lowest:,} to {highest:,}"
        raise UserError(KEY, folder, rule, "name the tokenizer that encoded it")


def _check_tokenizer(
    path: Path,
    tokenizer: Any,
    ids: Sequence[list[int]],
    texts: Sequence[str],
    folder: str | None,
) -> None:
    """Raise `UserError` if the first documents, encoded again, mostly have other ids."""
    again = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    equal = sum(one.ids == own for one, own in zip(again, ids, strict=True))
    if equal < LEAST_EQUAL * len(ids):
        rule = f"encodes {len(ids) - equal} of the first {len(ids)} documents of {path} otherwise"
        raise UserError(KEY, folder, rule, "name the tokenizer that encoded it")
