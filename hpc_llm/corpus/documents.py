"""Streams documents from files, folders, glob patterns, the sample corpus and the hub.

A record of `.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet` and `.arrow` is one document. A `.txt`
file of less than 64 KiB is one document; a larger one is split at blank lines into documents of up
to about 4,000 characters, or at line ends where it has no blank lines. `.gz` and `.zst` may follow
the endings of text formats.
"""

import glob
import json
import os
from collections.abc import Iterator
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from hpc_llm.corpus.indexed import INDEX, read_indexed
from hpc_llm.corpus.packed import blames_archive
from hpc_llm.corpus.records import READERS, printable, text_of
from hpc_llm.corpus.streams import read_lines
from hpc_llm.errors import UserError
from hpc_llm.settings import CorpusSettings

__all__ = ["ENDINGS", "expand_entries", "read_documents"]

TEXT_FORMATS = (".jsonl", ".txt", ".json", ".csv", ".tsv")
ENDINGS = (
    *(kind + packed for kind in TEXT_FORMATS for packed in ("", ".gz", ".zst")),
    *(".parquet", ".arrow", INDEX),
)
NO_TEXT = ("dataset_info.json", "state.json", "dataset_dict.json")
"""Files that the `datasets` library writes beside its `.arrow` files."""
SAMPLE_LANGUAGES = ("en", "ru")
WHOLE_BYTES = 64 * 1024  # a text file below this size is one document
DOCUMENT_CHARACTERS = 4_000  # larger ones are split into documents of about this size
LONGEST_CHARACTERS = 4 * DOCUMENT_CHARACTERS  # a longer paragraph is split, too


def _check_file(key: str, path: Path) -> list[str]:
    """Return the file, or the files of a folder, if they are of known formats."""
    if path.is_dir():
        found = sorted(
            str(file)
            for file in path.rglob("*")
            if file.name.lower().endswith(ENDINGS) and file.name not in NO_TEXT and file.is_file()
            if not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        if not found:
            rule = f"the folder has no file that ends with {', '.join(ENDINGS)}"
            raise UserError(key, path, rule, "convert its files to one of these formats")
        return found
    if not path.exists():
        raise UserError(key, path, "no such file", f"check the path (relative to {Path.cwd()})")
    if not path.is_file():  # a pipe would block, and is read twice
        rule = "is no regular file"
        raise UserError(key, path, rule, "write its content to a file first")
    if not path.name.lower().endswith(ENDINGS):
        rule = f"unknown extension; supported are {', '.join(ENDINGS)}"
        raise UserError(key, path, rule, "convert the file to one of these formats")
    return [str(path)]


def _expand(key: str, entry: str) -> list[str]:
    kind, _, name = entry.partition(":")
    if kind == "hub" and name:
        return [entry]
    if kind == "sample":
        if name not in SAMPLE_LANGUAGES:
            known = ", ".join(f"sample:{language}" for language in SAMPLE_LANGUAGES)
            raise UserError(key, entry, "no such sample corpus", f"choose one of {known}")
        return [entry]
    path = Path(os.path.expanduser(entry))
    if glob.has_magic(entry) and not path.exists():
        found = sorted(glob.glob(str(path), recursive=True))
        if not found:
            raise UserError(key, entry, "no file matches", "check the pattern")
        return [file for name in found for file in _check_file(key, Path(name))]
    return _check_file(key, path)


def expand_entries(entries: list[str], key: str = "corpus") -> list[str]:
    """Return the files and sources that `entries` expand to, each once, in order.

    Patterns are expanded (`**` included) and sorted; of a folder, all files of known formats below
    it count. Raises `UserError` about `key` for a missing file, a folder or a pattern without a
    match, and an unknown extension.
    """
    found = [name for entry in entries for name in _expand(key, entry)]
    return list(dict.fromkeys(found))


def _read_txt(path: Path) -> Iterator[str]:
    """Yield the file as one document, or as several when it is large (module docstring)."""
    parts = _paragraphs(path)
    head: list[str] = []
    head_bytes = 0
    for part in parts:
        head.append(part)
        head_bytes += len(part.encode())
        if head_bytes >= WHOLE_BYTES:
            break
    else:
        yield "".join(head)
        return
    document = ""
    for part in chain(head, parts):
        if document and len(document) + len(part) > DOCUMENT_CHARACTERS:
            yield document
            document = ""
        document += part
    yield document


def _paragraphs(path: Path) -> Iterator[str]:
    """Yield runs of lines that end with a blank line, or at 16,000 characters."""
    lines: list[str] = []
    size = 0
    for line in read_lines(path):
        lines.append(line)
        size += len(line)
        if not line.strip() or size >= LONGEST_CHARACTERS:
            yield "".join(lines)
            lines, size = [], 0
    if lines:
        yield "".join(lines)


def _read_sample(language: str) -> Iterator[str]:
    articles = files("hpc_llm.corpus") / "sample" / "articles.jsonl"
    for line in articles.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)[language]


def _read_hub(entry: str, settings: CorpusSettings, field: str) -> Iterator[str]:
    """Stream `hub:OWNER/NAME` or `hub:OWNER/NAME:CONFIG` with the `datasets` library."""
    from datasets import load_dataset

    _, name, *config = entry.split(":")

    def stream() -> Iterator[Any]:
        yield from load_dataset(name, *config, split=settings.hub_split, streaming=True)

    rows, number = stream(), 0
    while True:
        number += 1
        try:
            row = next(rows, None)
        except Exception as error:  # the library raises its own, the hub's and the network's kinds
            reason = printable(str(error).strip().split("\n")[0]) or type(error).__name__
            rule = f"cannot read split {settings.hub_split!r} from the hub ({reason})"
            fix = "check the name, corpus.hub_split and the network, or use files"
            raise UserError(entry, None, f"row {number}: {rule}", fix) from error
        if row is None:
            return
        yield text_of(row, field, entry)


def read_documents(entry: str, settings: CorpusSettings, field: str | None = None) -> Iterator[str]:
    """Yield the documents of one entry unchanged, one string each.

    `entry` comes from `expand_entries`; `field` (None: `settings.text_field`) names the field of
    records. Raises `UserError` about the file and line that cannot be read.
    """
    field = field or settings.text_field
    kind, _, name = entry.partition(":")
    if kind == "sample":
        return _read_sample(name)
    if kind == "hub":
        return _read_hub(entry, settings, field)
    path = Path(entry)
    if path.suffix.lower() == INDEX:
        return read_indexed(path, settings.ids_tokenizer)
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    reader = READERS.get(Path(name).suffix)
    return _read_file(path, _read_txt(path) if reader is None else reader(path, field))


def _read_file(path: Path, texts: Iterator[str]) -> Iterator[str]:
    with blames_archive(path):
        yield from texts
