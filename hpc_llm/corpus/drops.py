"""Counts and samples of what is dropped from a corpus, by rule and by file.

They are written as `report.json` and `samples/RULE.jsonl`, so that a person can judge a rule by
what it drops.
"""

import heapq
import json
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

__all__ = ["CONTAMINATED", "LATER", "NEAR", "NEAR_ELSEWHERE", "SAMPLES", "Drops"]

CONTAMINATED = "contaminated"
"""Rule: shares text with an evaluation file."""
NEAR, NEAR_ELSEWHERE = "near", "near_elsewhere"
"""Rules: similar to a kept document of the text, and to one of another text."""

LATER = (CONTAMINATED, NEAR, NEAR_ELSEWHERE)
"""Rules that are no quality rules."""

SAMPLES = 20
"""Samples of each rule."""
SAMPLE_CHARACTERS = 10_000
"""A longer sample is cut."""


class Drops:
    """What the rules drop from one text of the corpus; samples do not depend on the order."""

    def __init__(self) -> None:
        """Begin with nothing dropped."""
        self.read, self.left = Counter[str](), Counter[str]()
        self.documents, self.lines, self.bytes = Counter[str](), Counter[str](), Counter[str]()
        self.files: dict[str, Counter[str]] = {}
        self.owners = Counter[str]()
        """Contaminated documents by the evaluation file."""
        self.more: dict[str, Any] = {}
        """Further results of a rule for the report."""
        self._samples: dict[str, list[tuple[int, str, str]]] = {}

    def begin(self, text: str, file: str) -> None:
        """Count one document before any rule."""
        self.read["documents"] += 1
        self.read["bytes"] += len(text.encode())
        self.files.setdefault(file, Counter())["documents"] += 1

    def document(self, rule: str, text: str, file: str, owner: str | None = None) -> None:
        """Count one document that a rule drops, for text of the file `owner` if one is given."""
        self.documents[rule] += 1
        self.files.setdefault(file, Counter())[rule] += 1
        if owner is not None:
            self.owners[owner] += 1
        self._add(rule, text, file)

    def line(self, rule: str, line: str, file: str) -> None:
        """Count one line that a rule removes from a document."""
        self.lines[rule] += 1
        self._add(rule, line, file)

    def keep(self, text: str) -> None:
        """Count what remains of one document."""
        self.left["documents"] += 1
        self.left["bytes"] += len(text.encode())

    def lost(self, unit: str) -> float:
        """Return the share of the `documents` or `bytes` that is gone."""
        return 1 - self.left[unit] / self.read[unit] if self.read[unit] else 0.0

    def worst(self) -> tuple[str, float]:
        """Return the quality rule that drops or removes most bytes, and its share of all."""
        rule, size = next(item for item in self.bytes.most_common() if item[0] not in LATER)
        return rule, size / max(1, self.read["bytes"])

    def samples(self, rule: str) -> list[tuple[str, str]]:
        """Return some dropped texts or lines of a rule, each with its file."""
        return [(text, file) for _, text, file in sorted(self._samples[rule], reverse=True)]

    def report(self, kept: Mapping[str, int]) -> dict[str, Any]:
        """Return all counts; documents and bytes are those of cleaned UTF-8 text.

        `kept` are the documents and bytes after all steps.
        """
        rules = {
            rule: {
                "documents": self.documents[rule],
                "lines": self.lines[rule],
                "bytes": size,
                "bytes_share": size / max(1, self.read["bytes"]),
            }
            for rule, size in self.bytes.most_common()
        }
        return {
            "read": dict(self.read),
            "after_rules": dict(self.left),
            "kept": dict(kept),
            "bytes_share_lost": 1 - kept["bytes"] / max(1, self.read["bytes"]),
            "rules": rules,
            "files": {file: dict(counts) for file, counts in self.files.items()},
            "contaminated_by": dict(self.owners),
            **self.more,
        }

    def write(self, folder: Path, kept: Mapping[str, int]) -> None:
        """Write `report.json` and `samples/RULE.jsonl` into `folder`."""
        text = json.dumps(self.report(kept), ensure_ascii=False, indent=2) + "\n"
        (folder / "report.json").write_text(text, encoding="utf-8")
        (folder / "samples").mkdir()
        for rule in self.bytes:
            rows = ({"file": file, "text": text} for text, file in self.samples(rule))
            with (folder / "samples" / f"{rule}.jsonl").open("w", encoding="utf-8") as out:
                out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def _add(self, rule: str, text: str, file: str) -> None:
        data = text.encode()
        self.bytes[rule] += len(data)
        key = -int.from_bytes(blake2b(data, digest_size=16).digest())
        heap = self._samples.setdefault(rule, [])
        if len(heap) == SAMPLES and key <= heap[0][0]:
            return
        item = (key, text[:SAMPLE_CHARACTERS], file)
        if not any(item[:2] == other[:2] for other in heap):
            (heapq.heappushpop if len(heap) == SAMPLES else heapq.heappush)(heap, item)
