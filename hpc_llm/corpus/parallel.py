"""Texts of equal content in several languages, to count the tokens that each language needs."""

import os
from collections.abc import Mapping
from pathlib import Path

from hpc_llm.corpus.documents import expand_entries, read_documents
from hpc_llm.corpus.streams import read_lines
from hpc_llm.errors import UserError
from hpc_llm.settings import CorpusSettings

__all__ = ["parallel_file", "read_parallel"]


def parallel_file(key: str, entry: str) -> Path:
    """Return the one file that `entry` names; raise `UserError` about `key` otherwise."""
    found = expand_entries([entry], key)
    path = Path(os.path.expanduser(entry))
    if len(found) != 1 or not path.is_file():
        raise UserError(key, entry, "must be one file", "give the file of this language")
    return path


def read_parallel(
    key: str, entries: Mapping[str, str], settings: CorpusSettings
) -> dict[str, list[str]]:
    """Return the texts of each language; text i has the same content in all of them.

    `entries` are files by language. Of a plain text file each line is a text, otherwise each
    record; its text is in the field named like the language, or in `corpus.text_field`. So one file
    with the fields en and ru may stand for both. Raises `UserError` for unequal numbers of texts.
    """
    texts = {
        language: _read(parallel_file(f"{key}.{language}", entry), language, settings)
        for language, entry in entries.items()
    }
    sizes = {language: len(found) for language, found in texts.items()}
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        counted = ", ".join(f"{language} {size:,}" for language, size in sizes.items())
        rule = f"needs the same number of texts in each language, at least one ({counted})"
        raise UserError(key, dict(entries), rule, "give aligned files")
    return texts


def _read(path: Path, language: str, settings: CorpusSettings) -> list[str]:
    if path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(".txt"):
        return [line.rstrip("\n") for line in read_lines(path)]
    try:
        return list(read_documents(str(path), settings, language))
    except UserError as error:
        if error.key != "corpus.text_field":  # the file has no field of that name
            raise
    return list(read_documents(str(path), settings))
