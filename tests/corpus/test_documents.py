import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
import zstandard
from errors import user_error
from pyarrow import parquet

from hpc_llm.corpus import expand_entries, read_documents
from hpc_llm.settings import CorpusSettings

Settings = Callable[..., CorpusSettings]
TEXTS = ["Первый рассказ.", "Second story,\n\nwith two\tparagraphs.", "Третий: ёж."]


def as_jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"id": 1, "text": t}) + "\r\n" for t in texts).encode()


def read(path: Path, settings: CorpusSettings) -> list[str]:
    return list(read_documents(str(path), settings))


def write_all_kinds(folder: Path) -> dict[str, list[str]]:
    """Write TEXTS in every readable kind; return the documents each should give."""
    jsonl, txt = as_jsonl(TEXTS), "\n".join(TEXTS).encode()
    kinds = {"jsonl": (jsonl, TEXTS), "txt": (txt, ["\n".join(TEXTS)])}
    expected = {}
    for kind, (data, texts) in kinds.items():
        (folder / f"a.{kind}").write_bytes(data)
        (folder / f"a.{kind}.gz").write_bytes(gzip.compress(data[:40]) + gzip.compress(data[40:]))
        frames = [zstandard.compress(part) for part in (data[:40], data[40:])]
        (folder / f"a.{kind}.zst").write_bytes(b"".join(frames))
        expected |= dict.fromkeys((f"a.{kind}", f"a.{kind}.gz", f"a.{kind}.zst"), texts)
    parquet.write_table(pyarrow.table({"n": [1, 2, 3], "text": TEXTS}), folder / "a.parquet")
    return expected | {"a.parquet": TEXTS}


def test_every_kind_of_file(tmp_path: Path, settings: Settings) -> None:
    for name, texts in write_all_kinds(tmp_path).items():
        assert read(tmp_path / name, settings()) == texts, name


def test_patterns_are_expanded_once_and_sorted(tmp_path: Path) -> None:
    names = sorted(write_all_kinds(tmp_path))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.txt").write_text("b")
    assert expand_entries([f"{tmp_path}/a.*"]) == [str(tmp_path / n) for n in names]
    everything = expand_entries(["sample:ru", f"{tmp_path}/a.txt", f"{tmp_path}/**/*.txt"])
    assert everything == ["sample:ru", f"{tmp_path}/a.txt", f"{tmp_path}/deep/b.txt"]


def test_a_name_with_brackets_is_a_file_first(tmp_path: Path) -> None:
    path = tmp_path / "part[1].txt"
    path.write_text("text")
    assert expand_entries([str(path)]) == [str(path)]


@pytest.mark.parametrize(
    ("entry", "mention"),
    [
        ("missing.txt", "path"),
        ("*.nothing", "pattern"),
        ("folder", ".jsonl, .jsonl.gz"),
        ("table.xlsx", ".jsonl, .jsonl.gz"),
        ("sample:de", "sample:en, sample:ru"),
    ],
)
def test_wrong_entries(
    entry: str, mention: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "table.xlsx").write_text("a,b")
    (tmp_path / "table.xlsx").write_text("a,b")
    with user_error("corpus.target", mention) as error:
        expand_entries([entry], "corpus.target")
    assert str(error.value.value) == entry


@pytest.mark.parametrize(
    ("name", "data", "mention"),
    [
        ("a.txt", "привет\nмир".encode("cp1251"), "line 1, byte 1 "),
        ("b.jsonl", as_jsonl(TEXTS) + b'{"text": "\xff"}', "line 4, byte 11 "),
        ("c.txt", "hello".encode("utf-16"), "iconv -f UTF-16"),
        ("h.jsonl.gz", gzip.compress(as_jsonl(TEXTS * 9), mtime=0)[:-20], "truncated gz"),
        ("i.jsonl.gz", b"no gzip at all", "gzip"),
        ("j.txt.gz", gzip.compress(b"x" * 99, mtime=0)[:12] + b"\0" * 20, "corrupt"),
        ("k.jsonl.zst", zstandard.compress(as_jsonl(TEXTS * 99))[:-9], "truncated zst"),
        ("l.parquet", b"PAR1 no parquet", "parquet"),
    ],
)
def test_wrong_files(
    name: str, data: bytes, mention: str, tmp_path: Path, settings: Settings
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with user_error(str(path), mention):
        read(path, settings())


@pytest.mark.parametrize(
    ("line", "mention"),
    [(b'{"text": "torn', "invalid JSON"), (b'"only a string"', "JSON object")],
)
def test_wrong_lines(line: bytes, mention: str, tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(as_jsonl(TEXTS) + line)
    with user_error(f"{path}:4", mention):
        read(path, settings())


def test_wrong_fields(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "e.jsonl"
    odd = b'{"\\u001b[2J\\n\\ud83d": 1}'  # names that a terminal would obey or cannot show
    for line, mention in (
        *((b'{"body": "x", "id": 3}', "body, id"), (b'{"text": ["x"]}', "list")),
        (odd, "\\x1b[2J\\n\\ud83d"),
    ):
        path.write_bytes(b"\n" + line)
        with user_error("corpus.text_field", f"{path}:2", mention, value="text"):
            read(path, settings())


def test_parquet_columns(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"n": [1, 2], "body": ["x", None]}), path)
    assert read(path, settings(text_field="body")) == ["x", ""]
    with user_error("corpus.text_field", path, "n, body", value="text"):
        read(path, settings())
    with user_error("corpus.text_field", path, "int", value="n"):
        read(path, settings(text_field="n"))


def test_a_disk_error_stays_one(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "gone.jsonl.gz", settings())


def test_a_small_text_file_is_one_document(tmp_path: Path, settings: Settings) -> None:
    text = "\ufeff" + "Абзац.\n\n" * 3000
    path = tmp_path / "book.txt"
    path.write_text(text, encoding="utf-8")
    assert path.stat().st_size < 64 * 1024
    assert read(path, settings()) == [text[1:]]


@pytest.mark.parametrize(
    ("paragraph", "longest"),
    [("слово " * 100 + "\n\n", 4_000), ("line of text\n", 16_100), ("a " * 5000 + "\n\n", 10_100)],
)
def test_a_large_text_file_is_cut(
    paragraph: str, longest: int, tmp_path: Path, settings: Settings
) -> None:
    text = paragraph * (200_000 // len(paragraph))
    path = tmp_path / "book.txt"
    path.write_text(text, encoding="utf-8")
    documents = read(path, settings())
    assert "".join(documents) == text
    assert longest / 2 < max(map(len, documents)) <= longest
    assert all(document.endswith("\n") for document in documents)


def test_a_set_of_the_hub(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of that name is read by the same library call as the hub."""
    folder = tmp_path / "owner" / "stories"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_bytes(as_jsonl(TEXTS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    assert list(read_documents("hub:owner/stories", settings())) == TEXTS
    with user_error("hub:owner/stories", "'dev'", "corpus.hub_split"):
        list(read_documents("hub:owner/stories", settings(hub_split="dev")))
    (folder / "train.jsonl").write_bytes(as_jsonl(TEXTS) + b"{torn")
    with user_error("hub:owner/stories", "row"):
        list(read_documents("hub:owner/stories", settings()))
    (folder / "train.jsonl").write_bytes(as_jsonl(TEXTS))
    with user_error("corpus.text_field", "hub:owner/stories", value="body"):
        list(read_documents("hub:owner/stories", settings(text_field="body")))


def test_real_files(shared: Path, settings: Settings) -> None:
    entries = expand_entries([f"{shared}/data/ru/*.jsonl.gz"])
    counts = [sum(1 for _ in read_documents(entry, settings())) for entry in entries]
    assert counts == [9_640, 13_253]  # MANIFEST.md


def test_a_pipe_is_refused_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with user_error("corpus.target", value=tmp_path / "a.jsonl"):
        expand_entries([str(tmp_path / "a.jsonl")], "corpus.target")


def test_a_name_that_begins_with_a_tilde_is_no_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~no-such-user.txt").write_text("text")
    assert expand_entries(["~no-such-user.txt"]) == ["~no-such-user.txt"]
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("text")
    assert expand_entries(["~/a.txt"]) == [str(tmp_path / "a.txt")]
