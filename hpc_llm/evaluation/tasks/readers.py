"""Records of the files of tasks: JSON Lines, and CSV files of the form of MMLU.

MMLU (Hendrycks et al. 2021) has one CSV file a subject, without a header: question, four choices,
letter of the answer. Files with a header give records with its names.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpc_llm.corpus.packed import blames_archive
from hpc_llm.corpus.records import json_lines
from hpc_llm.corpus.streams import read_lines
from hpc_llm.errors import UserError

__all__ = ["ENDINGS", "records"]

PACKED = ("", ".gz", ".zst")
ENDINGS = tuple(f"{kind}{packed}" for kind in (".jsonl", ".csv") for packed in PACKED)

LETTERS = "ABCD"
MMLU = ("question", *LETTERS, "answer")
SPLITS = ("_test", "_dev", "_val", "_auxiliary_train")


def records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place (`FILE:LINE`) and the record of each line that is not empty.

    Raises `UserError` about a line that is no record.
    """
    with blames_archive(path):
        yield from (_of_csv if ".csv" in path.suffixes else _of_jsonl)(path)


def _of_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, record in json_lines(path):
        if not isinstance(record, dict):
            raise UserError(where, None, "not a JSON object", "write one object on each line")
        yield where, record


def _of_csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    names: Sequence[str] = MMLU
    for index, (number, row) in enumerate(_rows(path)):
        if index == 0 and "question" in (header := [cell.strip().lower() for cell in row]):
            names = [cell.upper() if cell.upper() in LETTERS else cell for cell in header]
        elif row:
            yield f"{path}:{number}", _of_row(f"{path}:{number}", names, row)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row, and the number of its last line."""
    reader = csv.reader(read_lines(path))
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        where = f"{path}:{reader.line_num}"
        raise UserError(where, None, f"invalid CSV ({error})", "fix or remove the line") from error


def _of_row(where: str, names: Sequence[str], row: list[str]) -> dict[str, Any]:
    """Return the record of a row; one of MMLU also has `choices`, `label` and `subject`."""
    if len(row) != len(names):
        rule = f"has {len(row)} columns, not {len(names)}: {', '.join(names)}"
        raise UserError(where, None, rule, "quote cells with commas and line breaks")
    record: dict[str, Any] = dict(zip(names, row, strict=True))
    if not set(MMLU) <= set(names):
        return record
    letter = record["answer"].strip()
    if letter not in (*LETTERS, *"0123"):
        rule = f"the answer is {letter!r}, not one of {', '.join(LETTERS)}"
        raise UserError(where, None, rule, "correct the cell")
    label = LETTERS.index(letter) if letter in LETTERS else int(letter)
    subject = record.get("subject") or _subject(Path(where.rpartition(":")[0]))
    return record | {
        "choices": [record[letter] for letter in LETTERS], "label": label, "subject": subject
    }  # fmt: skip


def _subject(path: Path) -> str:
    """Return `anatomy` for `anatomy_test.csv.gz`."""
    name = path.name.split(".")[0]
    return next((name.removesuffix(end) for end in SPLITS if name.endswith(end)), name)
