"""Text from token files of Megatron's indexed format, decoded by the tokenizer that wrote them."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from errors import user_error
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from hpc_llm.corpus import expand_entries, read_documents
from hpc_llm.corpus.indexed import files_behind

TEXTS = [f"Документ {i}: один, два\nand three. " * (i % 7 + 1) for i in range(30)]
MEGATRON, DEEPSPEED = {np.uint16: 8, np.int32: 4}, {np.uint16: 6, np.int32: 4}
"""Codes of types, as the two write them."""


def tokenizer(folder: Path, texts: list[str] = TEXTS, size: int = 400) -> Tokenizer:
    """Train a byte-level BPE with an end-of-document token, into `folder`."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<eod>"], initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    return made


def write(
    path: Path, documents: list[list[list[int]]], kind: Any = np.uint16, codes: Any = None
) -> None:
    """Write documents, each a list of sequences, by the description of the format."""
    sequences = [np.array(ids, kind) for document in documents for ids in document]
    path.with_suffix(".bin").write_bytes(b"".join(ids.tobytes() for ids in sequences))
    sizes = np.array([len(ids) for ids in sequences], "<i4")
    ends = np.cumsum([0, *(ids.nbytes for ids in sequences)])[:-1].astype("<i8")
    bounds = np.cumsum([0, *(len(document) for document in documents)]).astype("<i8")
    header = struct.pack("<9sQB", b"MMIDIDX\x00\x00", 1, (codes or MEGATRON)[kind])
    counts = struct.pack("<QQ", len(sizes), len(bounds))
    path.write_bytes(header + counts + sizes.tobytes() + ends.tobytes() + bounds.tobytes())


def ids_of(made: Tokenizer, texts: list[str]) -> list[list[list[int]]]:
    """Return each text as one sequence that ends with <eod>."""
    return [[[*made.encode(text).ids, 0]] for text in texts]


@pytest.mark.parametrize(("kind", "codes"), [(k, c) for c in (MEGATRON, DEEPSPEED) for k in c])
def test_documents_are_decoded_exactly(kind: Any, codes: Any, tmp_path: Path, settings: Any):
    write(tmp_path / "a.idx", ids_of(tokenizer(tmp_path / "tok"), TEXTS), kind, codes)
    plan = settings(ids_tokenizer=str(tmp_path / "tok"))
    (entry,) = expand_entries([str(tmp_path / "a.idx")])
    assert list(read_documents(entry, plan)) == TEXTS


def test_a_document_of_several_sequences_is_one_text(tmp_path: Path, settings: Any):
    made = tokenizer(tmp_path / "tok")
    halves = [[*made.encode("one, ").ids], [*made.encode("two").ids, 0]]
    write(tmp_path / "a.idx", [halves, [], ids_of(made, TEXTS[:1])[0]])
    plan = settings(ids_tokenizer=str(tmp_path / "tok"))
    assert list(read_documents(str(tmp_path / "a.idx"), plan)) == ["one, two", "", TEXTS[0]]


def test_another_tokenizer_is_refused(tmp_path: Path, settings: Any):
    write(tmp_path / "a.idx", ids_of(tokenizer(tmp_path / "tok"), TEXTS))
    tokenizer(tmp_path / "other", ["something else entirely"], 300)
    tokenizer(tmp_path / "small", ["x"], 260)
    for name in ("other", "small"):
        with user_error("corpus.ids_tokenizer", value=str(tmp_path / name)):
            list(
                read_documents(
                    str(tmp_path / "a.idx"), settings(ids_tokenizer=str(tmp_path / name))
                )
            )


def test_what_is_missing_is_named_before_a_run(tmp_path: Path):
    write(tmp_path / "a.idx", [[[1]]])
    with user_error("corpus.ids_tokenizer"):
        files_behind(tmp_path / "a.idx", None)
    with user_error("corpus.ids_tokenizer", value=str(tmp_path)):
        files_behind(tmp_path / "a.idx", str(tmp_path))
    (tmp_path / "a.bin").unlink()
    with user_error(str(tmp_path / "a.bin")):
        files_behind(tmp_path / "a.idx", str(tmp_path))


@pytest.mark.parametrize("damage", ["magic", "short", "bounds", "ids", "empty"])
def test_damaged_files_are_named(damage: str, tmp_path: Path, settings: Any):
    write(tmp_path / "a.idx", ids_of(tokenizer(tmp_path / "tok"), TEXTS))
    data, file = (tmp_path / "a.idx").read_bytes(), tmp_path / "a.idx"
    if damage == "ids":
        file = tmp_path / "a.bin"
        data = file.read_bytes() + b"\0"
    changed = {
        "magic": b"PK" + data[2:], "short": data[:-9], "empty": b"", "ids": data,
        "bounds": data[:-8] + struct.pack("<q", 99),
    }  # fmt: skip
    file.write_bytes(changed[damage])
    plan = settings(ids_tokenizer=str(tmp_path / "tok"))
    with user_error(str(file)):
        list(read_documents(str(tmp_path / "a.idx"), plan))
