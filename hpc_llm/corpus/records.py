"""Texts of files that hold records: JSON lines, JSON, CSV, Parquet and Arrow.

Whatever goes wrong while a record is read is one error that names the file and the line or row.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpc_llm.corpus.streams import LONGEST_LINE, read_lines, read_text
from hpc_llm.errors import UserError

__all__ = ["READERS", "printable", "text_of"]

DELIMITERS = (",", ";", "\t")
BATCH_ROWS = 1024
CHOOSE = "choose the field that holds the text, or name one for this text in corpus.text_fields"
NAMES = 300  # characters of field names, or of a parser, in an error


def text_of(record: Any, field: str, where: str) -> str:
    """Return the text of one record; null counts as empty."""
    if not isinstance(record, dict):
        rule, fix = "not a JSON object", "write one object with a text on each line"
        raise UserError(where, rule=rule, fix=fix)
    if field not in record:
        names = printable(", ".join(map(str, record)))[:NAMES] or "none"
        rule = f"{where} has no such field; its fields are {names}"
        raise UserError("corpus.text_field", field, rule, CHOOSE)
    text = record[field]
    if text is not None and not isinstance(text, str):
        rule = f"{where} holds {type(text).__name__}, not text"
        raise UserError("corpus.text_field", field, rule, CHOOSE)
    return text or ""


def printable(text: str) -> str:
    """Return `text` with characters escaped that a terminal would obey or cannot show."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@contextmanager
def _record(where: str | Callable[[], str], fix: str, place: str = "") -> Iterator[None]:
    """Turn any error of a parser inside the block into a `UserError` about `where`.

    `place` begins its rule.
    """
    try:
        yield
    except Exception as error:  # parsers raise many kinds: of values, overflow, memory, Arrow's own
        raise _wrong(error, where if isinstance(where, str) else where(), fix, place) from error


def _wrong(error: Exception, where: str, fix: str, place: str = "") -> Exception:
    """Return the `UserError` for an error of a parser; raise errors of the disk and user errors."""
    if isinstance(error, UserError) or getattr(error, "errno", None) is not None:
        raise error
    if isinstance(error, json.JSONDecodeError):
        rule = f"invalid JSON ({error.msg.removesuffix(' at')} at character {error.pos + 1})"
        if error.msg.startswith("Invalid control character"):
            letter = error.doc[error.pos]
            fix = f"write the character as \\u{ord(letter):04x}, or remove it"
            if letter == "\n":
                fix = "close the text with a quote, or write the end of line in it as \\n"
    elif isinstance(error, RecursionError):
        rule = "is nested too deeply to be read"
    else:
        rule = f"cannot be read ({printable(' '.join(str(error).split()))[:NAMES]})"
    return UserError(where, None, place + rule, fix)


def _read_jsonl(path: Path, field: str) -> Iterator[str]:
    yield from _of_lines(read_lines(path), path, field)


def _of_lines(lines: Iterable[str], path: Path, field: str) -> Iterator[str]:
    for where, record in _values(lines, path):
        yield text_of(record, field, where)


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the place (`FILE:LINE`) and the value of each line that is not empty.

    Raises `UserError` about a line that is not JSON.
    """
    yield from _values(read_lines(path), path)


def _values(lines: Iterable[str], path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except Exception as error:
            raise _wrong(error, f"{path}:{number}", "fix or remove the line") from error
        yield f"{path}:{number}", value


def _read_json(path: Path, field: str) -> Iterator[str]:
    """Yield the texts of a list of objects, of columns, of one object, or of JSON lines."""
    whole = read_text(path)
    try:
        with _record(str(path), "fix the file, or write one object on each line"):
            data = json.loads(whole)
    except UserError as error:
        cause = error.__cause__
        if isinstance(cause, json.JSONDecodeError) and cause.msg == "Extra data":
            yield from _of_lines(whole.split("\n"), path, field)
            return
        raise
    if isinstance(data, dict):
        data = _records(data, field)
    for number, record in enumerate(data if isinstance(data, list) else [data], 1):
        yield text_of(record, field, f"{path}: record {number}")


def _records(data: dict[str, Any], field: str) -> list[Any]:
    """Return the records of an object: its columns, its only list, or itself."""
    column = data.get(field)
    if isinstance(column, list):
        return [{field: text} for text in column]
    lists = [value for value in data.values() if isinstance(value, list)]
    return lists[0] if field not in data and len(lists) == 1 else [data]


def _read_csv(path: Path, field: str) -> Iterator[str]:
    """Yield a column of a table with a header, separated by commas, semicolons or tabs."""
    csv.field_size_limit(LONGEST_LINE)
    lines = read_lines(path)
    first = next(lines, None)
    if first is None:
        return
    fix = "quote texts with separators, quotes and line ends (RFC 4180), or convert it to .jsonl"
    headers = {}
    with _record(f"{path}:1", fix):
        for delimiter in DELIMITERS:
            headers[delimiter] = next(csv.reader([first], delimiter=delimiter), [])
    header_of = max(DELIMITERS, key=lambda delimiter: len(headers[delimiter]))
    delimiter = next((one for one in DELIMITERS if field in headers[one]), header_of)
    header = headers[delimiter]
    _require_column(header, field, f"{path}:1")
    column = header.index(field)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        with _record(lambda: f"{path}:{rows.line_num + 1}", fix):
            row = next(rows, None)
        if row is None:
            return
        if row and len(row) != len(header):
            rule = f"has {len(row)} columns, the header {len(header)}"
            raise UserError(f"{path}:{rows.line_num + 1}", None, rule, fix)
        if row:
            yield row[column]


def _read_parquet(path: Path, field: str) -> Iterator[str]:
    from pyarrow import parquet

    def batches() -> Iterator[Any]:
        with parquet.ParquetFile(path) as table:
            _require_column(table.schema_arrow.names, field, str(path))
            yield from table.iter_batches(batch_size=BATCH_ROWS, columns=[field])

    yield from _of_batches(batches(), field, path)


def _read_arrow(path: Path, field: str) -> Iterator[str]:
    """Yield a column of an Arrow file, or of an Arrow stream as `datasets` writes it."""
    import pyarrow

    def batches() -> Iterator[Any]:
        with path.open("rb") as head:
            is_file = head.read(6) == b"ARROW1"
        with pyarrow.memory_map(str(path)) as source:
            if is_file:
                table = pyarrow.ipc.open_file(source)
                _require_column(table.schema.names, field, str(path))
                yield from (table.get_batch(i) for i in range(table.num_record_batches))
            else:
                stream = pyarrow.ipc.open_stream(source)
                _require_column(stream.schema.names, field, str(path))
                yield from stream

    yield from _of_batches(batches(), field, path)


def _require_column(names: list[str], field: str, where: str) -> None:
    """Raise `UserError` unless exactly one column has the name `field`."""
    if field not in names:
        text_of(dict.fromkeys(names), field, where)
    if (count := names.count(field)) > 1:
        rule = f"{where} has {count} columns of this name"
        raise UserError("corpus.text_field", field, rule, "rename or remove all but one")


def _of_batches(batches: Iterator[Any], field: str, path: Path) -> Iterator[str]:
    rows = 0
    fix = "copy the file again, or remove the damaged rows"
    while True:
        with _record(str(path), fix, f"from row {rows + 1:,} on it "):
            batch = next(batches, None)
            if batch is None:
                return
            batch.validate(full=True)  # damaged offsets would be read beyond the end of memory
            texts = batch.column(batch.schema.get_field_index(field)).to_pylist()
        for number, text in enumerate(texts, rows + 1):
            yield text_of({field: text}, field, f"{path}: row {number}")
        rows += len(texts)


READERS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
}
"""Readers by the extension of the file: from its path and the field to the texts."""
