"""Finished stages on the disk: which are verified, which run again, which are refused."""

from dataclasses import replace

import pytest
from errors import user_error

from hpc_llm.pipeline.cache import SharedCache
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.pipeline.integrity import damage_of, verified_todo
from hpc_llm.pipeline.runner import _set_aside
from hpc_llm.pipeline.table import ROWS
from hpc_llm.pipeline.todo import inputs_of, unfinished
from hpc_llm.rundir import RunFolder, append_line, damaged_lines, read_jsonl, take_inventory


def stage(kind, name, *upstream):
    return Stage(
        name=name, row=ROWS[kind], needs=upstream[-1:], upstream=upstream, settings={},
        outputs=(f"{name}/out",), owns=(name,), fingerprint=name.replace("/", "-"),
    )  # fmt: skip


CORPUS = stage("corpus", "corpus")
TOKENIZER = stage("tokenizer", "tokenizer", "corpus")
LORA = stage("train", "train/lora", "corpus", "tokenizer")
STAGES = [CORPUS, TOKENIZER, LORA]


def finish(folder, one, text):
    """Write the result of a stage and its record."""
    (folder.path / one.name).mkdir(parents=True, exist_ok=True)
    (folder.path / one.outputs[0]).write_text(text)
    record = {
        "stage": one.name, "fingerprint": one.fingerprint, "result": {},
        "inputs": inputs_of(folder.records(), one),
        "files": take_inventory(folder.path, one.owns),
    }  # fmt: skip
    folder.write_record(record)
    return record


@pytest.fixture
def folder(tmp_path):
    """Return a run folder in which all stages are finished."""
    found = RunFolder(tmp_path / "run")
    found.path.mkdir()
    for one in STAGES:
        finish(found, one, one.name)
    return found


def todo(folder, verb="adapt"):
    return verified_todo(folder, STAGES, STAGES, verb)


def names(stages):
    return [one.name for one in stages]


def test_a_damaged_stage_runs_again_and_those_after_it_only_if_its_files_differ(folder):
    (folder.path / "corpus/out").write_text("corqus")
    assert todo(folder) == ["corpus"]
    finish(folder, CORPUS, "corpus")
    assert todo(folder) == []
    finish(folder, CORPUS, "another corpus")
    assert todo(folder) == ["tokenizer", "train/lora"]
    finish(folder, TOKENIZER, "tokenizer")
    assert names(unfinished(folder, STAGES, "adapt")) == ["train/lora"]  # it reads both
    finish(folder, LORA, "lora")
    assert todo(folder) == []


def test_what_was_made_from_other_files_is_moved_aside_once(folder):
    finish(folder, CORPUS, "another corpus")
    _set_aside(folder, LORA)
    assert (folder.path / "superseded/train-lora.1/out").read_text() == "train/lora"
    assert folder.finished("train/lora") is None
    (folder.path / "train/lora/checkpoints").mkdir(parents=True)  # interrupted
    _set_aside(folder, LORA)
    assert (folder.path / "train/lora/checkpoints").exists()


def test_a_verb_refuses_damaged_inputs_that_it_does_not_make(folder):
    (folder.path / "train/lora/out").unlink()
    assert todo(folder, "train") == ["train/lora"]
    (folder.path / "corpus/out").write_text("")
    with user_error(str(folder.path / "corpus/out"), "hpc-llm adapt"):
        todo(folder, "train")
    assert todo(folder, "tokenizer") == []  # it reads nothing
    assert todo(folder) == ["corpus", "train/lora"]


def test_stages_of_earlier_versions_are_done_and_not_verified(folder):
    old = [{k: v for k, v in r.items() if k in ("stage", "fingerprint", "result")}
           for r in folder.records().values()]  # fmt: skip
    folder.record.unlink()
    for record in old:
        folder.write_record(record)
    (folder.path / "corpus/out").write_text("changed")
    assert todo(folder) == []
    assert damage_of(folder, CORPUS) == []


def test_a_folder_in_place_of_a_file_is_damage(folder):
    (folder.path / "corpus/out").unlink()
    (folder.path / "corpus/out").mkdir()
    assert todo(folder) == ["corpus"]


def test_a_damaged_entry_of_the_cache_is_not_linked(folder, tmp_path):
    cache, other = SharedCache.of(str(tmp_path)), RunFolder(tmp_path / "other")
    other.path.mkdir()
    record = folder.records()["train/lora"]
    cache.keep(LORA, folder, record)
    assert cache.take(LORA, other, record["inputs"]) == record
    assert cache.take(LORA, other, {**record["inputs"], "corpus": "another"}) is None
    assert cache.take(replace(LORA, fingerprint="x"), other) is None
    file = cache.entry(LORA).path / "files/train/lora/out"
    file.unlink()
    file.write_text("damage")
    assert cache.take(LORA, other, record["inputs"]) is None


def test_no_damaged_byte_of_a_line_is_believed(tmp_path):
    path, line = tmp_path / "lines.jsonl", {"seconds": 1.5, "stage": "train/lora", "note": "é"}
    append_line(path, line)
    data = path.read_bytes()
    assert list(read_jsonl(path)) == [line]
    for place in range(len(data)):
        flipped = data[place] ^ (1, 0x10, 0x80)[place % 3]
        path.write_bytes(data[:place] + bytes([flipped]) + data[place + 1 :])
        found = list(read_jsonl(path))
        known = [{k: v for k, v in one.items() if k in line} for one in found]
        assert known == [line] or (found == [] and damaged_lines(path) == 1), place
