"""Files and cleaning settings on which the corpus depends: those of steps that are on."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpc_llm.corpus.documents import expand_entries
from hpc_llm.corpus.indexed import INDEX, files_behind
from hpc_llm.corpus.rules import NONE, build_filter, code_of
from hpc_llm.corpus.word_lists import list_path
from hpc_llm.rundir import fingerprint, fingerprint_path
from hpc_llm.settings import CorpusSettings

__all__ = ["OF_CLEANING", "contents", "counting"]

OF_CLEANING = (
    *("clean", "cleaned", "language", "c4", "gopher"),
    *("deduplicate", "minhash", "decontaminate"),
)
"""Settings of these steps."""
LISTS = ("bad_words", "stop_words_file")
"""Settings that name files."""


def counting(settings: CorpusSettings) -> dict[str, Any]:
    """Return the settings that change the result; {} without rules. Files count by content.

    Raises `UserError` for a missing file.
    """
    found: dict[str, Any] = {} if build_filter(settings) is None else _of_rules(settings)
    if settings.deduplicate != "exact":
        found |= {"deduplicate": settings.deduplicate, "minhash": asdict(settings.minhash)}
    if settings.decontaminate:
        files = expand_entries(settings.decontaminate, "corpus.decontaminate")
        found["decontaminate"] = contents(files, settings.ids_tokenizer)
    return found


def _of_rules(settings: CorpusSettings) -> dict[str, Any]:
    found: dict[str, Any] = {"cleaned": settings.cleaned, "language": asdict(settings.language)}
    if settings.clean == NONE:
        return found
    values = asdict(settings).get(settings.clean)
    if not isinstance(values, dict):  # a plug-in has no settings
        values = {}
    for key in LISTS:
        if (name := values.get(key)) is not None:
            values[key] = fingerprint_path(list_path(f"corpus.{settings.clean}.{key}", name))
    return found | {"clean": settings.clean, settings.clean: values} | code_of(settings)


def contents(entries: list[str], ids_tokenizer: str | None) -> list[str]:
    """Identify corpus entries: files by their content, other entries by their name.

    `ids_tokenizer` is the folder of the tokenizer of token files. Raises `UserError` where they
    lack a file.
    """
    return [_content(entry, Path(entry), ids_tokenizer) for entry in entries]


def _content(entry: str, path: Path, ids_tokenizer: str | None) -> str:
    if not path.is_file():
        return entry
    if path.suffix.lower() == INDEX:
        files = [path, *files_behind(path, ids_tokenizer)]
        return fingerprint([fingerprint_path(file) for file in files])
    return fingerprint_path(path)
