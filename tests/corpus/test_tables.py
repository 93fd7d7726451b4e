"""JSON, CSV and Arrow files, folders of files, and a field of the text for each source."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from datasets import Dataset
from errors import user_error
from pyarrow import parquet

from hpc_llm.corpus import build_corpus, expand_entries, load_texts, read_documents
from hpc_llm.settings import CorpusSettings

Settings = Callable[..., CorpusSettings]
TEXTS = ["Первый рассказ.", 'Second "story",\n\nwith; two\tparagraphs.', ""]


def read(path: Path, settings: CorpusSettings) -> list[str]:
    return list(read_documents(str(path), settings))


def quoted(delimiter: str) -> str:
    cells = ['"' + text.replace('"', '""') + '"' for text in TEXTS]
    return "\r\n".join([f"id{delimiter}text", *(f"1{delimiter}{cell}" for cell in cells)])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", quoted(",")),
        ("b.csv", "\ufeff" + quoted(";") + "\r\n\r\n"),
        ("c.tsv", quoted("\t")),
        ("d.json", json.dumps([{"id": 1, "text": text} for text in TEXTS], indent=1)),
        ("e.json", json.dumps({"version": 1, "data": [{"text": text} for text in TEXTS]})),
        ("f.json", json.dumps({"id": [1, 2, 3], "text": TEXTS}, ensure_ascii=False)),
        ("g.json", "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)),
        ("h.JSONL", "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)),
    ],
)
def test_text_tables(name: str, content: str, tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8", newline="")
    assert read(path, settings()) == TEXTS
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert expand_entries([str(packed)]) == [str(packed)]
    assert read(packed, settings()) == TEXTS


def test_one_object_is_one_document(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"text": "one", "tags": ["x"]}))
    assert read(path, settings()) == ["one"]


def test_arrow_files_and_streams(tmp_path: Path, settings: Settings) -> None:
    table = pyarrow.table({"n": [1, 2, 3], "text": TEXTS})
    for name, writer in (("a.arrow", pyarrow.ipc.new_file), ("b.arrow", pyarrow.ipc.new_stream)):
        with writer(tmp_path / name, table.schema) as out:
            out.write_table(table)
        assert read(tmp_path / name, settings()) == TEXTS
        with user_error("corpus.text_field", "n, text", value="body"):
            read(tmp_path / name, settings(text_field="body"))


def test_a_folder_is_its_files(tmp_path: Path, settings: Settings) -> None:
    """A folder that the `datasets` library saved has descriptions in JSON beside its data."""
    Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "saved")
    [entry] = expand_entries([str(tmp_path / "saved")])
    assert list(read_documents(entry, settings())) == TEXTS
    for name in ("b/2.txt", "b/1.csv", ".hidden/a.txt", "b/readme.md", ".cache.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text\na")
    found = [str(tmp_path / name) for name in ("b/1.csv", "b/2.txt")]
    assert expand_entries([str(tmp_path), str(tmp_path / "b")]) == [*found, entry]


@pytest.mark.parametrize(
    ("name", "content", "place", "mention"),
    [
        ("a.csv", "id,text\n1,a,b\n", ":2", "3"),
        ("b.csv", 'id,text\n1,"a\n\nb', ":4", ".jsonl"),
        ("c.csv", 'id,text\n1,"a" b\n', ":2", ".jsonl"),
        ("d.json", '[{"text": "a"}, "b"]', ": record 2", "object"),
        ("e.json", '[{"text": "a"},', "", "JSON"),
        ("f.json", '{"text": "a"}\n{"text"}', ":2", "JSON"),
    ],
)
def test_wrong_tables(
    name: str, content: str, place: str, mention: str, tmp_path: Path, settings: Settings
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with user_error(f"{path}{place}", mention):
        read(path, settings())


def test_columns_are_listed(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id;body\n1;a\n")
    with user_error("corpus.text_field", path, "id, body", value="text"):
        read(path, settings())


def test_each_text_and_entry_may_name_its_field(tmp_path: Path, settings: Settings) -> None:
    for name in ("text", "content", "body"):
        lines = (json.dumps({name: f"document {i} of {name}"}) + "\n" for i in range(9))
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("text", "content", "body")}
    plan = settings(
        target=[files["text"]],
        source=[files["content"], files["body"]],
        text_fields={"source": "content", files["body"]: "body"},
    )
    for text in ("target", "source"):
        build_corpus(getattr(plan, text), f"corpus.{text}", plan, 1, tmp_path / text)
    assert len(load_texts(tmp_path / "source" / "train.jsonl")) == 9
    with user_error("corpus.text_fields", "target", "source", value="chat"):
        settings(text_fields={"chat": "x"})
    with user_error("corpus.text_fields.source"):
        settings(text_fields={"source": ""})


def test_a_column_twice_is_refused(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "a.csv").write_text("text,id,text\nright,1,wrong\n")
    columns = [pyarrow.array(["right"]), pyarrow.array(["wrong"])]
    table = pyarrow.Table.from_arrays(columns, names=["text", "text"])
    with pyarrow.ipc.new_file(tmp_path / "b.arrow", table.schema) as out:
        out.write_table(table)
    with pyarrow.ipc.new_stream(tmp_path / "c.arrow", table.schema) as out:
        out.write_table(table)
    parquet.write_table(table, tmp_path / "d.parquet")
    for path in sorted(tmp_path.iterdir()):
        with user_error("corpus.text_field", path.name, "2", value="text"):
            read(path, settings())
