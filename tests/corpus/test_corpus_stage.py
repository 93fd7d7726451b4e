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
    result = corpus.run(context(tmp_path, settings(**paths)), "corpus")
    assert result["target"]["invisible"] == removed
    assert ("invisible" in result["line"]) == bool(removed)
    assert "removed from source" not in result["line"]


def context(folder: Path, settings: Any) -> Any:
    return SimpleNamespace(
        cfg=SimpleNamespace(corpus=settings, text_seed=1), stage_folder=lambda name: folder / name
    )


def test_what_was_dropped_is_in_the_line(tmp_path: Path, settings: Any) -> None:
    texts = [None, "", "\ufeff", "ab", "a", *(f"document {i}" for i in range(9))]
    for name in ("target", "source"):
        rows = texts if name == "source" else texts[5:]
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps({"text": text}) + "\n" for text in rows)
        )
    paths = {name: [str(tmp_path / f"{name}.jsonl")] for name in ("target", "source")}
    result = corpus.run(context(tmp_path, settings(**paths)), "corpus")
    assert (result["source"]["empty"], result["source"]["dropped"]) == (3, 5)
    assert "3 empty documents dropped from source" in result["line"]
    assert "2 documents of less than 3 characters dropped from source" in result["line"]
    assert "dropped from target" not in result["line"]


def test_fewer_held_out_documents_than_set_are_in_the_line(tmp_path: Path, settings: Any) -> None:
    lines = (json.dumps({"text": f"document {i}"}) + "\n" for i in range(9))
    (tmp_path / "a.jsonl").write_text("".join(lines))
    for wanted, few in ((2, False), (50, True)):
        plan = settings(target=[str(tmp_path / "a.jsonl")], test_documents=wanted, tune_documents=2)
        result = corpus.run(context(tmp_path, plan), "corpus")
        found = result["target"]
        said = f"{found['test']} test and {found['tune']} tune documents of target held out"
        assert (said in result["line"], "50 and 2" in result["line"]) == (few, few)
