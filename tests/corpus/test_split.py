import json
import random
import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from errors import user_error

from hpc_llm.corpus import build_corpus, clean, load_texts, read_texts
from hpc_llm.settings import CorpusSettings

Settings = Callable[..., CorpusSettings]
PARTS = ("train", "tune", "test")


def write(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    return str(path)


def split_of(folder: Path) -> dict[str, list[str]]:
    return {part: load_texts(folder / f"{part}.jsonl") for part in PARTS}


def documents(count: int) -> list[str]:
    return [f"Документ номер {i}:\nтекст {i * i}." for i in range(count)]


def test_the_parts_are_the_corpus(tmp_path: Path, settings: Settings) -> None:
    texts = documents(100)
    entry = write(tmp_path / "a.jsonl", [*texts, " x ", texts[3] + "\r\n", texts[5], ""])
    counts = build_corpus([entry], "corpus.target", settings(), 1, tmp_path / "out")
    parts = split_of(tmp_path / "out")
    assert sorted(chain(*parts.values())) == sorted(texts)
    assert {part: len(parts[part]) for part in PARTS} == {"train": 91, "tune": 3, "test": 6}
    assert (counts.train, counts.tune, counts.test) == (91, 3, 6)
    assert (counts.documents, counts.duplicates, counts.dropped) == (100, 2, 2)
    assert counts.characters == sum(map(len, texts))
    assert counts.bytes == sum(len(text.encode()) for text in texts)
    assert counts.test_bytes == sum(len(text.encode()) for text in parts["test"])
    assert counts.words == sum(len(text.split()) for text in parts["train"])


def test_documents_held_out_elsewhere_are_excluded(tmp_path: Path, settings: Settings) -> None:
    texts = documents(40)
    entry = write(tmp_path / "a.jsonl", [*texts, texts[7]])
    counts = build_corpus(
        [entry], "corpus.texts.a", settings(), 1, tmp_path / "out", heldout=[*texts[:5], "other"]
    )
    assert split_of(tmp_path / "out") == {"train": texts[5:], "tune": [], "test": []}
    assert (counts.train, counts.excluded, counts.duplicates) == (35, 5, 1)
    with user_error("corpus.texts.a", 41, value=entry):
        build_corpus([entry], "corpus.texts.a", settings(), 1, tmp_path / "none", heldout=texts)


def test_the_split_does_not_depend_on_the_files(tmp_path: Path, settings: Settings) -> None:
    texts = documents(200)
    one = write(tmp_path / "one.jsonl", texts)
    build_corpus([one], "corpus.target", settings(), 1, tmp_path / "one")
    random.Random(0).shuffle(texts)
    several = [write(tmp_path / f"{i}.jsonl", texts[i::3]) for i in (2, 0, 1)]
    build_corpus(several, "corpus.target", settings(), 1, tmp_path / "several")
    first, second = split_of(tmp_path / "one"), split_of(tmp_path / "several")
    assert first["test"] == second["test"]
    assert first["tune"] == second["tune"]
    assert sorted(first["train"]) == sorted(second["train"])


def test_more_text_never_moves_a_document_into_the_held_out_part(
    tmp_path: Path, settings: Settings
) -> None:
    texts = documents(300)
    for count in (150, 300):
        entry = write(tmp_path / f"{count}.jsonl", texts[:count])
        build_corpus([entry], "corpus.target", settings(), 1, tmp_path / str(count))
    before, after = split_of(tmp_path / "150"), split_of(tmp_path / "300")
    old_heldout = {*before["test"], *before["tune"]}
    assert {*after["test"], *after["tune"]} & set(texts[:150]) <= old_heldout


def test_the_seed_chooses(tmp_path: Path, settings: Settings) -> None:
    entry = write(tmp_path / "a.jsonl", documents(200))
    tests = []
    for seed in (1, 2, 1):
        build_corpus([entry], "corpus.target", settings(), seed, tmp_path / "out")
        tests.append(load_texts(tmp_path / "out" / "test.jsonl"))
    assert tests[0] == tests[2]
    assert tests[0] != tests[1]


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [
        (100, 0.06, (94, 2, 4)),  # 6 may be held out: 2/3 of them for the test
        (100, 0.001, (98, 1, 1)),
        (10, 0.3, (7, 1, 2)),
        (3, 0.5, (1, 1, 1)),
        (5, 1.0, (1, 1, 3)),
    ],
)
def test_a_small_corpus_holds_less_out(
    count: int, share: float, expected: tuple[int, int, int], tmp_path: Path, settings: Settings
) -> None:
    entry = write(tmp_path / "a.jsonl", documents(count))
    counts = build_corpus(
        [entry], "corpus.target", settings(max_heldout_share=share), 1, tmp_path / "out"
    )
    assert (counts.train, counts.tune, counts.test) == expected
    parts = split_of(tmp_path / "out")
    assert sorted(chain(*parts.values())) == sorted(documents(count))


@pytest.mark.parametrize("texts", [[], ["ab", " "], ["один и тот же"] * 9, documents(2)])
def test_too_little_text(texts: list[str], tmp_path: Path, settings: Settings) -> None:
    entry = write(tmp_path / "a.jsonl", texts)
    with user_error("corpus.source", " 3 ", value=entry):
        build_corpus([entry], "corpus.source", settings(), 1, tmp_path / "out")


def test_no_more_than_max_documents(tmp_path: Path, settings: Settings) -> None:
    entries = [write(tmp_path / f"{i}.jsonl", documents(60)[i::2]) for i in (0, 1)]
    counts = build_corpus(entries, "corpus.target", settings(max_documents=40), 1, tmp_path / "out")
    assert counts.documents == 40


def test_texts_come_back_as_they_were(tmp_path: Path, settings: Settings) -> None:
    nasty = [
        "a\u2028b",
        "tab\t\ttab",
        "two\n\nlines",
        "  x  y",
        '"quoted" \\n',
        "👩‍🚀 ёж",
        "a\x85b",
    ]
    entry = write(tmp_path / "a.jsonl", nasty)
    build_corpus([entry], "corpus.target", settings(), 1, tmp_path / "out")
    found = [text for part in PARTS for text in read_texts(tmp_path / "out" / f"{part}.jsonl")]
    assert sorted(found) == sorted(map(clean, nasty))


def test_no_held_out_document_is_trained_on(
    shared: Path, tmp_path: Path, settings: Settings
) -> None:
    entry = f"{shared}/data/ru/ru_tinystories.jsonl.gz"
    copy = shutil.copy(entry, tmp_path)
    plan = settings(test_documents=200, tune_documents=100, max_heldout_share=0.1)
    counts = build_corpus([entry, copy], "corpus.target", plan, 1, tmp_path)
    parts = split_of(tmp_path)
    assert (counts.test, counts.tune) == (200, 100)
    assert (counts.documents, counts.duplicates) == (13_253, 13_253)
    assert len({text for texts in parts.values() for text in texts}) == counts.documents
