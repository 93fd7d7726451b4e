"""Streams documents from files, glob patterns, the sample corpus and the hub.

A `.jsonl` line and a `.parquet` row are one document each. A `.txt` file of less than 64 KiB is one
document; a larger one is split at blank lines into documents of up to about 4,000 characters, or
at line ends where it has no blank lines. `.gz` and `.zst` may follow `.jsonl` and `.txt`.
"""

import glob
import json
from collections.abc import Iterator
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from hpc_llm.corpus.streams import read_lines
from hpc_llm.errors import UserError
from hpc_llm.settings import CorpusSettings

__all__ = ["ENDINGS", "expand_entries", "read_documents"]

ENDINGS = (
    *(".jsonl", ".jsonl.gz", ".jsonl.zst"),
    *(".txt", ".txt.gz", ".txt.zst"),
    ".parquet",
)
SAMPLE_LANGUAGES = ("en", "ru")
WHOLE_BYTES = 64 * 1024  # a text file below this size is one document
DOCUMENT_CHARACTERS = 4_000  # larger ones are split into documents of about this size
LONGEST_CHARACTERS = 4 * DOCUMENT_CHARACTERS  # a longer paragraph is split, too


def _check_file(key: str, path: Path) -> str:
    if path.is_dir():
        raise UserError(key, path, "is a folder", f"use its files, for example {path}/*.jsonl.gz")
    if not path.exists():
        raise UserError(key, path, "no such file", f"check the path (relative to {Path.cwd()})")
    if not path.name.endswith(ENDINGS):
        rule = f"unknown extension; supported are {', '.join(ENDINGS)}"
        raise UserError(key, path, rule, "convert the file to one of these formats")
    return str(path)


def _expand(key: str, entry: str) -> list[str]:
    kind, _, name = entry.partition(":")
    if kind == "hub" and name:
        return [entry]
    if kind == "sample":
        if name not in SAMPLE_LANGUAGES:
            known = ", ".join(f"sample:{language}" for language in SAMPLE_LANGUAGES)
            raise UserError(key, entry, "no such sample corpus", f"choose one of {known}")
        return [entry]
    path = Path(entry).expanduser()
    if glob.has_magic(entry) and not path.exists():
        found = sorted(glob.glob(str(path), recursive=True))
        if not found:
            raise UserError(key, entry, "no file matches", "check the pattern")
        return [_check_file(key, Path(name)) for name in found]
    return [_check_file(key, path)]


def expand_entries(entries: list[str], key: str = "corpus") -> list[str]:
    """Return the files and sources that `entries` expand to, each once, in order.

    Patterns are expanded (`**` included) and sorted. Raises `UserError` about `key` for a missing
    file, a folder, a pattern without a match and an unknown extension.
    """
    found = [name for entry in entries for name in _expand(key, entry)]
    return list(dict.fromkeys(found))


def _text_of(record: Any, field: str, where: str) -> str:
    """Return the text of one record; null counts as empty."""
    if not isinstance(record, dict):
        rule, fix = "not a JSON object", "write one object with a text on each line"
        raise UserError(where, rule=rule, fix=fix)
    if field not in record:
        names = ", ".join(map(str, record)) or "none"
        rule = f"{where} has no such field; its fields are {names}"
        raise UserError("corpus.text_field", field, rule, "choose the field that holds the text")
    text = record[field]
    if text is not None and not isinstance(text, str):
        rule = f"{where} holds {type(text).__name__}, not text"
        raise UserError("corpus.text_field", field, rule, "choose the field that holds the text")
    return text or ""


def _read_jsonl(path: Path, field: str) -> Iterator[str]:
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            rule = f"invalid JSON ({error.msg} at character {error.pos + 1})"
            raise UserError(f"{path}:{number}", None, rule, "fix or remove the line") from error
        yield _text_of(record, field, f"{path}:{number}")


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


def _read_parquet(path: Path, field: str) -> Iterator[str]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as table:
            names = table.schema_arrow.names
            if field not in names:
                _text_of(dict.fromkeys(names), field, str(path))
            for batch in table.iter_batches(batch_size=1024, columns=[field]):
                for text in batch.column(0).to_pylist():
                    yield _text_of({field: text}, field, str(path))
    except pyarrow.ArrowException as error:
        rule = f"not a readable parquet file ({error})"
        raise UserError(str(path), None, rule, "copy it again") from error


def _read_sample(language: str) -> Iterator[str]:
    articles = files("hpc_llm.corpus") / "sample" / "articles.jsonl"
    for line in articles.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)[language]


def _read_hub(entry: str, settings: CorpusSettings) -> Iterator[str]:
    """Stream `hub:OWNER/NAME` or `hub:OWNER/NAME:CONFIG` with the `datasets` library."""
    from datasets import load_dataset

    _, name, *config = entry.split(":")
    try:
        rows = load_dataset(name, *config, split=settings.hub_split, streaming=True)
        first = next(iter(rows), None)
    except Exception as error:  # the library raises its own, the hub's and the network's kinds
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        rule = f"cannot read split {settings.hub_split!r} from the hub ({reason})"
        fix = "check the name, corpus.hub_split and the network, or use files"
        raise UserError(entry, None, rule, fix) from error
    if first is not None:
        for row in rows:
            yield _text_of(row, settings.text_field, entry)


def read_documents(entry: str, settings: CorpusSettings) -> Iterator[str]:
    """Yield the documents of one entry unchanged, one string each.

    `entry` comes from `expand_entries`; `settings.text_field` names the field of `.jsonl`,
    `.parquet` and hub records. Raises `UserError` about the file and line that cannot be read.
    """
    kind, _, name = entry.partition(":")
    if kind == "sample":
        return _read_sample(name)
    if kind == "hub":
        return _read_hub(entry, settings)
    path = Path(entry)
    if path.name.endswith(".parquet"):
        return _read_parquet(path, settings.text_field)
    if ".jsonl" in path.suffixes:
        return _read_jsonl(path, settings.text_field)
    return _read_txt(path)
