"""Lists of words in files of the user: one word or phrase a line."""

import os
from pathlib import Path

from hpc_llm.corpus.streams import read_lines
from hpc_llm.errors import UserError

__all__ = ["list_path", "read_words"]


def list_path(key: str, name: str) -> Path:
    """Return the file that setting `key` names. Raises `UserError` if it is no file of text."""
    path = Path(os.path.expanduser(name))
    if not path.is_file():
        rule, fix = "no such file", f"give a text file with one word a line (from {Path.cwd()})"
        raise UserError(key, name, rule, fix)
    return path


def read_words(key: str, name: str) -> list[str]:
    """Return the case-folded words of a file, without empty lines. Raises `UserError`."""
    words = [line.strip().casefold() for line in read_lines(list_path(key, name))]
    if not any(words):
        raise UserError(key, name, "has no words", "write one word or phrase a line")
    return list(dict.fromkeys(filter(None, words)))
