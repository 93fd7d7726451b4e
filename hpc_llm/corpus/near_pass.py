"""Two passes over a corpus without its near-duplicates: all signatures first, then the texts."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hpc_llm.corpus.document import Document, digest_of
from hpc_llm.corpus.drops import NEAR, NEAR_ELSEWHERE, Drops
from hpc_llm.corpus.near import Copies, NearCopies
from hpc_llm.settings.cleaning import MinhashSettings

__all__ = ["without_copies"]

LARGEST = 10
"""Clusters that the report shows."""
HEAD = 200
"""Characters of a document in the report."""


def without_copies(
    documents: Iterable[Document],
    settings: MinhashSettings,
    elsewhere: Iterable[str],
    folder: Path,
    drops: Drops,
) -> Iterator[Document]:
    """Yield the documents that are kept, in order, and count the others in `drops`.

    What is similar to one of the texts `elsewhere` is dropped. The documents lie in a temporary
    file in `folder` meanwhile. Writes `clusters.jsonl`: for each kept document with near-duplicates
    its digest, the beginning of its text, and digest, file and similarity of each dropped one.
    """
    near, path = NearCopies(settings), folder / "unique.jsonl"
    for text in elsewhere:
        near.add(text, digest_of(text), elsewhere=True)
    first = len(near)
    with path.open("w", encoding="utf-8") as out:
        for one in documents:
            near.add(one.text, digest_of(one.text))
            out.write(json.dumps(one[:2], ensure_ascii=False) + "\n")
    copies = near.find()
    clusters = _Clusters(copies)
    with path.open("rb") as lines:
        for place, line in enumerate(lines, first):
            file, text = json.loads(line)
            clusters.see(place, file, text)
            kept, _ = copies.kept_by.get(place, (None, 1.0))
            if kept is None:
                yield Document(file, text, place not in copies.mixed)
            else:
                drops.document(NEAR if kept >= first else NEAR_ELSEWHERE, text, file)
    path.unlink()
    clusters.write(folder / "clusters.jsonl")
    drops.more["clusters"] = {"by_size": copies.sizes(), "largest": clusters.largest()}


class _Clusters:
    """What `clusters.jsonl` shows of the documents of clusters."""

    def __init__(self, copies: Copies) -> None:
        self.copies, self.clusters = copies, copies.clusters()
        self.seen: dict[int, dict[str, str]] = {}

    def see(self, place: int, file: str, text: str) -> None:
        if place in self.copies.kept_by or place in self.clusters:
            self.seen[place] = {"id": digest_of(text).hex(), "file": file}
            if place in self.clusters:
                self.seen[place]["text"] = text[:HEAD]

    def _row(self, kept: int, dropped: list[int]) -> dict[str, Any]:
        rows = [
            self.seen[one] | {"similarity": round(self.copies.kept_by[one][1], 4)}
            for one in dropped
        ]
        return {"kept": self.seen.get(kept, {"file": "another text"}), "dropped": rows}

    def write(self, path: Path) -> None:
        with path.open("w", encoding="utf-8") as out:
            for kept, dropped in sorted(self.clusters.items()):
                out.write(json.dumps(self._row(kept, dropped), ensure_ascii=False) + "\n")

    def largest(self) -> list[dict[str, Any]]:
        by_size = sorted(self.clusters.items(), key=lambda item: (-len(item[1]), item[0]))
        return [
            {"documents": len(dropped) + 1, "text": self.seen.get(kept, {}).get("text", "")}
            for kept, dropped in by_size[:LARGEST]
        ]
