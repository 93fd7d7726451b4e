"""The log line of the corpus stage."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpc_llm.stages import corpus


@pytest.mark.parametrize("removed", [0, 3])
def test_removed_characters_are_in_the_line(removed: int, tmp_path: Path, settings: Any) -> None:
    for text, mark in (("target", "\x07" * removed), ("source", "")):
        lines = (json.dumps({"text": f"document {i}{mark * (i == 5)}"}) + "\n" for i in range(9))
        (tmp_path / f"{text}.jsonl").write_text("".join(lines))
    paths = {text: [str(tmp_path / f"{text}.jsonl")] for text in ("target", "source")}
    context: Any = SimpleNamespace(
        cfg=SimpleNamespace(corpus=settings(**paths), seed=1),
        stage_folder=lambda name: tmp_path / name,
    )
    result = corpus.run(context, "corpus")
    assert result["target"]["invisible"] == removed
    assert ("invisible" in result["line"]) == bool(removed)
    assert ("source" in result["line"]) is False
