"""Files that cannot be read: one line that names the file, its line or row, and the fix."""

import bz2
import gzip
import json
import lzma
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pytest
import zstandard
from errors import user_error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from hpc_llm.corpus import build_corpus, read_documents
from hpc_llm.errors import UserError
from hpc_llm.settings import CorpusSettings

Settings = Callable[..., CorpusSettings]
RUSSIAN = "Привет, мир. Это рассказ о доме и саде.\n"
LINE = json.dumps({"text": RUSSIAN}, ensure_ascii=False)


def read(path: Path, plan: CorpusSettings) -> list[str]:
    return list(read_documents(str(path), plan))


def outcome(path: Path, plan: CorpusSettings) -> str | None:
    """Read a file; return the key of the error, of one line, or None."""
    try:
        texts = read(path, plan)
    except UserError as error:
        return error.key if "\n" not in str(error) else "several lines"
    return None if all(isinstance(text, str) for text in texts) else "no text"


@pytest.mark.parametrize(
    "value",
    [
        *("7" * 5000, "[" * 100_000, '{"a":' * 100_000, '"\\ud8', '"a\tb"', "1e", "nul", '"a"} x'),
        *("-" + "7" * 5000, "[" * 100_000 + "]" * 100_000, '"\\x"', "'a'", ""),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_records_that_no_parser_takes(
    value: str, kind: str, tmp_path: Path, settings: Settings
) -> None:
    record = f'{{"text": "a", "n": {value}}}'
    path = tmp_path / f"a.{kind}"
    path.write_text(f"{LINE}\n{record}" if kind == "jsonl" else f"[{LINE},\n{record}]")
    with user_error(f"{path}:2" if kind == "jsonl" else str(path)):
        read(path, settings())


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("text", [RUSSIAN * 50, "English words only.\n" * 50, "ёжик"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.json", "a.txt.gz", "a.jsonl.zst"])
def test_wide_encodings_are_named(
    encoding: str, marked: bool, text: str, name: str, tmp_path: Path, settings: Settings
) -> None:
    mark = "\ufeff" if marked else ""
    data = (mark + json.dumps({"text": text}, ensure_ascii=False) + "\n" + text).encode(encoding)
    path = tmp_path / name
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(data))
    expected = encoding[:6] if marked else encoding.replace("-le", "le").replace("-be", "be")
    with user_error(str(path), f"iconv -f {expected.upper()} "):
        read(path, settings())


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20,
        b"\x7fELF\x02\x01\x01" + b"\0" * 900,
        b"PK\x03\x04" + b"\x14\0\x06\0" * 400,
        b"text\0text",
        RUSSIAN.encode() * 300 + bytes(9000),
    ],
)
def test_binary_files(data: bytes, tmp_path: Path, settings: Settings) -> None:
    for name in ("a.txt", "a.jsonl", "a.csv"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError) as error:
            read(tmp_path / name, settings())
        assert error.value.key.startswith((str(tmp_path / name), "corpus.text_field"))


def test_what_is_removed_is_counted(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "a.jsonl"
    texts = ["bell\x07 and\x00 null", "half \ud83d pair", "\ufeffmark", "plain \x1b[0m colour"]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    counts = build_corpus([str(path)], "corpus.target", settings(), 1, tmp_path / "out")
    assert counts.invisible == 5
    log = tmp_path / "b.txt"  # a few control characters do not make a text a binary file
    log.write_text(RUSSIAN * 9 + "\x1b[32mOK\x1b[0m\x07")
    assert len(read(log, settings())) == 1


def checked_zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.gz", gzip.compress), ("a.zst", checked_zstd), ("b.zst", zstandard.compress)],
)
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
def test_a_flipped_byte_of_an_archive_is_no_encoding(
    name: str, pack: Callable[[bytes], bytes], kind: str, tmp_path: Path, settings: Settings
) -> None:
    """Without a checksum (b.zst) damage cannot be told from text in another encoding."""
    lines = [json.dumps({"text": f"{RUSSIAN}{i}{i * i}"}, ensure_ascii=False) for i in range(90)]
    text = {"jsonl": "\n".join(lines), "txt": RUSSIAN * 99, "csv": f'text\n"{RUSSIAN}"\n' * 60}[
        kind
    ]
    path = tmp_path / f"a.{kind}.{name[2:]}"
    data = pack(text.encode())
    refused = 0
    for place in range(12, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        if name == "b.zst" and outcome(path, settings()) is None:
            continue  # other text, or the same
        refused += 1
        with pytest.raises(UserError, match="archive is damaged") as error:
            read(path, settings())
        assert name == "b.zst" or error.value.key == str(path), place
    assert refused > 5


NOISE = random.Random(0).randbytes(900)
MISNAMED = [
    ("a.txt.gz", RUSSIAN.encode(), ".gz"),
    ("a.txt.gz", zstandard.compress(b"text"), "zstd"),
    ("a.txt.gz", b"", "empty"),
    ("a.jsonl.zst", LINE.encode(), ".zst"),
    ("a.jsonl.zst", gzip.compress(b"text"), "gzip"),
    ("a.jsonl.zst", b"", "empty"),
    ("a.txt", gzip.compress(RUSSIAN.encode() * 50), "gzip"),
    ("a.jsonl", zstandard.compress(NOISE), "zstd"),
    ("a.jsonl", bz2.compress(NOISE), "bzip2"),
    ("a.csv", lzma.compress(NOISE), "xz"),
    ("a.txt", b"%PDF-1.5\n%\xd0\xd4\xc5\xd8\n" + bytes(range(256)), "PDF"),
]


@pytest.mark.parametrize(
    ("name", "data", "mention"),
    MISNAMED,
    ids=[f"{name}-{mention}" for name, _, mention in MISNAMED],
)
def test_archives_under_wrong_names(
    name: str, data: bytes, mention: str, tmp_path: Path, settings: Settings
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with user_error(str(path), mention) as error:
        read(path, settings())
    assert "iconv" not in str(error.value)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
@pytest.mark.parametrize(
    ("raw", "mention"),
    [(b"\0", r"tr -d '\000'"), (b"\xed\xa0\xbd", "iconv -c"), (b"\xed\xb2\x80 \xff", "iconv -c")],
)
def test_raw_nuls_and_surrogates(
    raw: bytes, mention: str, name: str, tmp_path: Path, settings: Settings
) -> None:
    path = tmp_path / name
    path.write_bytes(b'{"text": "English text' + raw * 3 + b'"}\n')
    with user_error(str(path), mention):
        read(path, settings())
    path.write_bytes((LINE + "\n").encode() * 90 + b'{"text": "a' + raw + b'b"}\n')
    found = outcome(path, settings())
    if raw == b"\0":  # one among thousands of letters
        assert found == (None if name == "a.txt" else f"{path}:91")
    else:
        with user_error(str(path), "line 91", mention):
            read(path, settings())


def test_a_raw_control_character_in_json_is_named(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "a.jsonl"
    for raw, code in (("\0", r"\u0000"), ("\t", r"\u0009")):
        path.write_text((LINE + "\n") * 90 + f'{{"text": "a{raw}b"}}\n')
        with user_error(f"{path}:91", code):
            read(path, settings())


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.zst", "a.json.gz"])
@pytest.mark.parametrize(
    "block", [b" " * 2**20, json.dumps({"text": "x " * 2**19}).encode() + b"\n"]
)
def test_files_that_expand_without_end(
    name: str, block: bytes, tmp_path: Path, settings: Settings
) -> None:
    path = tmp_path / name
    pack = gzip.compress if name.endswith("gz") else zstandard.compress
    path.write_bytes(pack(block) * (2**28 // len(block)))
    size = 0
    with user_error(str(path)):
        for text in read_documents(str(path), settings()):
            size += len(text)
        raise AssertionError(size)
    assert size < 2**27


def arrow_bytes(writer: Callable[..., object]) -> bytes:
    table = pyarrow.table({"n": list(range(60)), "text": [f"{RUSSIAN}{i}" for i in range(60)]})
    sink = pyarrow.BufferOutputStream()
    with writer(sink, table.schema) as out:  # type: ignore[attr-defined]
        out.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def test_damaged_pages(tmp_path: Path, settings: Settings) -> None:
    for name, writer in (
        ("a.parquet", parquet.ParquetWriter),
        ("a.arrow", pyarrow.ipc.new_stream),
        ("b.arrow", pyarrow.ipc.new_file),
    ):
        path, data = tmp_path / name, arrow_bytes(writer)
        path.write_bytes(data)
        assert len(read(path, settings())) == 60
        refused = 0
        for place in range(4, len(data) - 8, 41):
            path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) * 8 + data[place + 8 :])
            refused += outcome(path, settings()) in (str(path), "corpus.text_field")
        assert refused > 10, name


VALID = {
    "a.jsonl": (LINE + "\n").encode() * 3,
    "a.json": f"[{LINE},{LINE}]".encode(),
    "a.txt": RUSSIAN.encode() * 3,
    "a.csv": f'id,text\n1,"{RUSSIAN}"\n2,b\n'.encode(),
    "a.tsv": b"id\ttext\n1\tb\n2\tc\n",
    "a.jsonl.gz": gzip.compress((LINE + "\n").encode() * 3, mtime=0),
    "a.jsonl.zst": zstandard.compress((LINE + "\n").encode() * 3),
    "a.parquet": arrow_bytes(parquet.ParquetWriter),
    "a.arrow": arrow_bytes(pyarrow.ipc.new_stream),
    "b.arrow": arrow_bytes(pyarrow.ipc.new_file),
}
PARTS = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"\0", b'"', b"\xff\xfe", b"\n", b"\r", b"{", b"[" * 3000, b"9" * 5000]),
)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with some bytes replaced, inserted or cut off, or other bytes altogether."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=300))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(PARTS) + data[place + draw(st.integers(0, 12)) :]
    return data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", VALID)
def test_no_bytes_make_another_error(name: str, folder: Path) -> None:
    plan = CorpusSettings(
        target=[], source=[], texts={}, text_field="text", text_fields={}, hub_split="train",
        min_characters=1, max_documents=None, test_documents=1, tune_documents=1,
        max_heldout_share=0.5,
    )  # fmt: skip

    @settings(
        max_examples=500,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged(VALID[name]))
    def check(data: bytes) -> None:
        (folder / name).write_bytes(data)
        assert outcome(folder / name, plan) not in ("several lines", "no text")

    check()


def test_a_quote_that_is_missing_is_no_control_character(
    tmp_path: Path, settings: Settings
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{LINE}\n{{"text": "no end\n{LINE}\n')
    with user_error(f"{path}:2", "quote") as error:
        read(path, settings())
    assert "at at" not in str(error.value)
