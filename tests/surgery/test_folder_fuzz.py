"""Model folders with one byte, one file or one key changed: read, or refused in one line."""

import json
import shutil

import families
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import settings as configuration

from hpc_llm.errors import UserError
from hpc_llm.surgery.folders import check_base
from hpc_llm.surgery.loading import load_model, load_tokenizer
from hpc_llm.surgery.trust import check_model_files

CHECKED = settings(
    max_examples=500, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
LOADED = settings(CHECKED, max_examples=60)
FILES = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    "model.safetensors",
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-10, 10**20), st.floats(), st.text(max_size=8),
    st.lists(st.integers(-3, 9), max_size=3), st.dictionaries(st.text(max_size=5), st.integers()),
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A tiny Llama with its tokenizer."""
    folder = tmp_path_factory.mktemp("whole")
    families.tiny_model("llama").save_pretrained(folder)
    families.tokenizer(families.ROWS, 0).save_pretrained(folder)
    return folder


@pytest.fixture
def copied(whole, tmp_path):
    """Copies of the model, one for each example."""

    def copy():
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        return shutil.copytree(whole, tmp_path / "model")

    return copy


def check(folder):
    cfg = configuration("experiment=example").model
    try:
        check_model_files(str(folder), cfg)
        check_base(str(folder))
    except UserError:
        return False
    return True


def load(folder):
    cfg = configuration("experiment=example").model
    try:
        load_model(folder, cfg, "fp32")
        load_tokenizer(folder, cfg)
    except UserError:
        pass


def changed_byte(folder, name, place, byte):
    file = folder / name
    data = bytearray(file.read_bytes())
    data[int(place * (len(data) - 1))] = byte
    file.write_bytes(bytes(data))


def changed_key(folder, name, key, value):
    file = folder / name
    values = json.loads(file.read_text())
    values[sorted(values)[key % len(values)]] = value
    file.write_text(json.dumps(values))


BYTES = {
    "name": st.sampled_from(FILES),
    "place": st.one_of(st.floats(0, 1), st.floats(0, 0.02)),
    "byte": st.integers(0, 255),
}
KEYS = {"name": st.sampled_from(FILES[:4]), "key": st.integers(0, 60), "value": VALUES}


@CHECKED
@given(**BYTES)
def test_one_byte_before_the_run(copied, name, place, byte):
    folder = copied()
    changed_byte(folder, name, place, byte)
    check(folder)


@CHECKED
@given(**KEYS)
def test_one_key_before_the_run(copied, name, key, value):
    folder = copied()
    changed_key(folder, name, key, value)
    check(folder)


@LOADED
@given(**BYTES)
def test_one_byte_when_it_is_loaded(copied, name, place, byte):
    folder = copied()
    changed_byte(folder, name, place, byte)
    load(folder)


@LOADED
@given(**KEYS)
def test_one_key_when_it_is_loaded(copied, name, key, value):
    folder = copied()
    changed_key(folder, name, key, value)
    load(folder)


@pytest.mark.parametrize("name", FILES)
def test_one_file_gone_or_empty_or_a_folder(copied, name):
    for change in ("gone", "empty", "folder"):
        folder = copied()
        (folder / name).unlink()
        if change == "empty":
            (folder / name).touch()
        elif change == "folder":
            (folder / name).mkdir()
        check(folder)
        load(folder)
