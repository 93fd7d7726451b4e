"""Atomic writes, torn lines, fingerprints and what an earlier result becomes."""

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from errors import user_error
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE

from hpc_llm.rundir import (
    RunFolder,
    append_line,
    fingerprint_path,
    publish,
    read_json,
    read_jsonl,
    replaced_folder,
    write_json,
)


def test_a_torn_line_costs_no_good_one(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_line(path, {"a": 1})
    with path.open("a") as handle:
        handle.write('{"a": 2, "tor')
    append_line(path, {"a": 3})
    assert [line["a"] for line in read_jsonl(path)] == [1, 3]
    assert list(read_jsonl(tmp_path / "none.jsonl")) == []


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with user_error(str(path), "NaN"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["value.json"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    place = tmp_path / "stage"
    with replaced_folder(place) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(FileNotFoundError), replaced_folder(place) as folder:
        (folder / "b").write_text((folder / "none").read_text())
    assert os.listdir(place) == ["a"]
    with replaced_folder(place) as folder:
        (folder / "c").write_text("3")
    assert os.listdir(place) == ["c"]
    assert os.listdir(tmp_path) == ["stage"]


@pytest.fixture
def small_files():
    """No file of this process may grow beyond 1,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "write",
    [
        lambda file: save_file({"a": np.zeros(1000)}, file),
        lambda file: Tokenizer(BPE(vocab={f"a{n}": n for n in range(1000)}, merges=[])).save(file),
        lambda file: Path(file).write_bytes(bytes(2000)),
    ],
    ids=["safetensors", "tokenizers", "Python"],
)
def test_an_error_of_the_system_is_one_whoever_meets_it(tmp_path, small_files, write):
    place = tmp_path / "stage"
    with pytest.raises(OSError, match="File too large") as caught, replaced_folder(place) as folder:
        write(str(folder / "file"))
    assert caught.value.errno == errno.EFBIG
    assert os.listdir(tmp_path) == []


def test_a_fingerprint_follows_names_and_contents(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "a").write_text("text")
    assert fingerprint_path(one) == fingerprint_path(two)
    assert fingerprint_path(one / "a") == fingerprint_path(two / "a")
    (two / "a").write_text("test")
    assert fingerprint_path(one) != fingerprint_path(two)
    (two / "a").rename(two / "b")
    (two / "b").write_text("text")
    assert fingerprint_path(one) != fingerprint_path(two)


def test_the_newest_record_counts_and_old_results_are_kept(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.finished("corpus") is None
    for number in (1, 2):
        folder.write_record({"stage": "corpus", "fingerprint": str(number)})
        (tmp_path / "train" / "lora").mkdir(parents=True)
        (tmp_path / "train" / "lora" / "x").write_text(str(number))
        moved = folder.supersede("train/lora")
        assert moved == tmp_path / "superseded" / f"train-lora.{number}"
        assert (moved / "x").read_text() == str(number)
    assert folder.finished("corpus")["fingerprint"] == "2"
    assert folder.supersede("train/lora") is None


def test_weights_can_be_read_by_others(tmp_path):
    before = os.umask(0o022)
    try:
        with replaced_folder(tmp_path / "model") as folder:
            (folder / "model.safetensors").touch(0o600)
        (tmp_path / "new.tmp").touch(0o600)
        publish(tmp_path / "new.tmp", tmp_path / "new")
    finally:
        os.umask(before)
    for path in (tmp_path / "model" / "model.safetensors", tmp_path / "new"):
        assert path.stat().st_mode & 0o777 == 0o644
