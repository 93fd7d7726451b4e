"""Training documents that share a run of 13 words with an evaluation file."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from errors import user_error

from hpc_llm.corpus import build_corpus, load_texts
from hpc_llm.corpus.counting import counting
from hpc_llm.settings import CorpusSettings

Settings = Callable[..., CorpusSettings]
RUN = 13


def words(count: int, seed: int) -> list[str]:
    return [f"слово{random.Random(seed * 999 + i).randrange(10**9)}" for i in range(count)]


def runs(text: str) -> set[tuple[str, ...]]:
    parts = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return {tuple(parts[i : i + RUN]) for i in range(len(parts) - RUN + 1)}


@pytest.fixture
def evaluations(tmp_path: Path) -> list[str]:
    """Two files: questions with choices, and plain text."""
    rows = [
        {
            "id": i,
            "passage": {"text": " ".join(words(20, i))},
            "choices": ["да", " ".join(words(14, 70 + i))],
        }
        for i in range(5)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.txt").write_text(" ".join(words(30, 5)))
    return [str(tmp_path / "a.jsonl"), str(tmp_path / "b.txt")]


def test_no_document_shares_a_run_afterwards(
    evaluations: list[str], tmp_path: Path, settings: Settings
) -> None:
    passage, answer, plain = words(20, 2), words(14, 72), words(30, 5)
    leaking = [
        " ".join([*words(40, 90), *passage[3:16], *words(40, 91)]),
        ", ".join([*words(9, 92), *answer]).upper(),
        " ".join([*plain[9:], *words(9, 93)]),
    ]
    harmless = [" ".join([*words(40, 94), *passage[3:15], *words(9, 95)]), "да да да"]
    texts = [*leaking, *harmless, *(" ".join(words(30, 200 + i)) for i in range(60))]
    entry = tmp_path / "in.jsonl"
    entry.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    results = {}
    for name, files in (("before", []), ("after", evaluations)):
        plan = settings(decontaminate=files)
        results[name] = build_corpus(
            [str(entry)], "corpus.texts.x", plan, 1, tmp_path / name, heldout=[]
        )
    train = load_texts(tmp_path / "after/train.jsonl")
    assert results["after"].contaminated == 3
    assert results["after"].documents == len(train) == len(texts) - 3
    assert results["after"].bytes == sum(len(text.encode()) for text in train)
    assert train == [t for t in load_texts(tmp_path / "before/train.jsonl") if t not in leaking]
    report = json.loads((tmp_path / "after/report.json").read_text())
    assert report["contaminated_by"] == {evaluations[0]: 2, evaluations[1]: 1}
    assert set(load_texts(tmp_path / "after/samples/contaminated.jsonl")) == set(leaking)
    known = runs(" . ".join(words(20, 2))) | runs(" ".join(answer)) | runs(" ".join(plain))
    assert not any(runs(text) & known for text in train)
    assert not (tmp_path / "before/report.json").exists()


def test_held_out_documents_are_the_same(
    evaluations: list[str], tmp_path: Path, settings: Settings
) -> None:
    texts = [" ".join(words(20, i)) for i in range(40)]
    entry = tmp_path / "in.jsonl"
    entry.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for name, files in (("before", []), ("after", evaluations)):
        plan = settings(decontaminate=files)
        build_corpus([str(entry)], "corpus.target", plan, 1, tmp_path / name)
    for part in ("test", "tune"):
        before, after = (tmp_path / name / f"{part}.jsonl" for name in ("before", "after"))
        assert before.read_bytes() == after.read_bytes()


def test_wrong_files(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "short.jsonl").write_text('{"question": "Кто тут?"}\n')
    (tmp_path / "bad.jsonl").write_text('{"question": \n')
    (tmp_path / "in.jsonl").write_text('{"text": "один"}\n{"text": "два"}\n{"text": "три"}\n')

    def build(name: str) -> None:
        plan = settings(decontaminate=[str(tmp_path / name)], max_heldout_share=0.1)
        build_corpus([str(tmp_path / "in.jsonl")], "corpus.target", plan, 1, tmp_path / "out")

    with user_error("corpus.decontaminate", 13, value=str(tmp_path / "short.jsonl")):
        build("short.jsonl")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "short.jsonl").write_text('{"question": "Кто тут?"}\n')
    (folder / "long.jsonl").write_text('{"q": "' + " ".join(map(str, range(20))) + '"}\n')
    build("folder")  # its short file is ignored
    (folder / "long.jsonl").unlink()
    with user_error("corpus.decontaminate", 13, value=str(folder / "short.jsonl")):
        build("folder")
    with user_error(f"{tmp_path}/bad.jsonl:1"):
        build("bad.jsonl")
    with user_error("corpus.decontaminate"):
        counting(settings(decontaminate=["/none.jsonl"]))
