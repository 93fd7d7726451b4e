"""Training documents that contain text of evaluation files (`corpus.decontaminate`).

A document is dropped if it shares a run of 13 words with a text of these files, as GPT-3 does
(Brown et al. 2020, appendix C). Words are compared without case and punctuation. Of records, every
string counts as a text: questions, passages, answers. Texts of less than 13 words are not looked
for: they occur by chance.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hpc_llm.corpus.documents import expand_entries, read_documents
from hpc_llm.corpus.records import json_lines
from hpc_llm.corpus.shingles import normal_words, runs_of_words
from hpc_llm.errors import UserError
from hpc_llm.settings import CorpusSettings

__all__ = ["KEY", "RUN", "Contamination"]

KEY = "corpus.decontaminate"
RUN = 13
"""Words of a shared run."""


class Contamination:
    """The runs of words of the evaluation files. Memory: 12 bytes a run."""

    def __init__(self, settings: CorpusSettings) -> None:
        """Read the files.

        Raises `UserError` for one without a text of 13 words. If it belongs to a folder or pattern,
        it is ignored, unless there is no other.
        """
        self.files = expand_entries(settings.decontaminate, KEY)
        expanded = [expand_entries([entry], KEY) for entry in settings.decontaminate]
        named = {files[0] for files in expanded if len(files) == 1}
        runs: list[np.ndarray] = []
        owners: list[np.ndarray] = []
        for place, file in enumerate(self.files):
            own = [runs_of_words(normal_words(text), RUN) for text in _texts(file, settings)]
            found = np.unique(np.concatenate([np.zeros(0, np.uint64), *own]))
            last = place == len(self.files) - 1
            if not len(found) and (file in named or (last and not runs)):
                rule = f"has no text of {RUN} words, so no document can be compared with it"
                raise UserError(KEY, file, rule, "remove it from the list")
            if len(found):
                runs.append(found)
                owners.append(np.full(len(found), place, np.int32))
        order = np.argsort(np.concatenate(runs), kind="stable")
        self._runs, self._owners = np.concatenate(runs)[order], np.concatenate(owners)[order]

    def found_in(self, text: str) -> str | None:
        """Return the first file that shares a run of words with `text`; None: there is none."""
        runs = runs_of_words(normal_words(text), RUN)
        places = np.searchsorted(self._runs, runs).clip(max=len(self._runs) - 1)
        equal = places[self._runs[places] == runs]
        return self.files[self._owners[equal].min()] if len(equal) else None


def _texts(file: str, settings: CorpusSettings) -> Iterator[str]:
    """Yield the texts of a file: of JSON lines all strings, of others the field of the text."""
    name = file.lower().removesuffix(".gz").removesuffix(".zst")
    if not name.endswith(".jsonl"):
        yield from read_documents(file, settings)
        return
    for _, record in json_lines(Path(file)):
        yield from _strings(record)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
