"""The shared cache: linked whole or not at all, one works while others wait, never what is held."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpc_llm.errors import Stopped
from hpc_llm.pipeline.cache import SharedCache
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.pipeline.table import ROWS
from hpc_llm.rundir import RunFolder

STAGE = Stage(
    name="train/lora", row=ROWS["train"], needs=(), outputs=("train/lora/done.json",),
    owns=("train/lora",), fingerprint="f00d", settings={},
)  # fmt: skip
RECORD = {"stage": "train/lora", "fingerprint": "f00d", "result": {"line": "x"}}


@pytest.fixture
def cache(tmp_path):
    return SharedCache.of(str(tmp_path))


def finished(runs: Path, name: str, text: str = "{}") -> RunFolder:
    """Return a run folder in which the stage is done."""
    folder = RunFolder(runs / name)
    stage = folder.path / "train/lora"
    (stage / "adapter").mkdir(parents=True)
    (stage / "checkpoints/step-00000001").mkdir(parents=True)
    (stage / "done.json").write_text(text)
    (stage / "adapter/weights").write_bytes(os.urandom(1000))
    (stage / "checkpoints/step-00000001/state.json").write_text("{}")
    folder.write_record(RECORD)
    return folder


def test_a_stage_is_linked_whole_and_without_its_checkpoints(cache, tmp_path):
    first = finished(tmp_path, "a")
    cache.keep(STAGE, first, RECORD)
    other = RunFolder(tmp_path / "b")
    other.path.mkdir()
    assert cache.take(STAGE, other) == RECORD
    for name in ("done.json", "adapter/weights"):
        theirs = (other.path / "train/lora" / name).read_bytes()
        assert theirs == (first.path / "train/lora" / name).read_bytes()
    assert not (other.path / "train/lora/checkpoints").exists()


def test_another_fingerprint_and_a_damaged_entry_are_not_taken(cache, tmp_path):
    cache.keep(STAGE, finished(tmp_path, "a"), RECORD)
    other = Stage(
        **{**{k: getattr(STAGE, k) for k in STAGE.__dataclass_fields__}, "fingerprint": "x"}
    )
    folder = RunFolder(tmp_path / "b")
    folder.path.mkdir()
    assert cache.take(other, folder) is None
    (cache.entry(STAGE).path / "record.json").write_text('{"stage": ')
    assert cache.take(STAGE, folder) is None
    assert not (folder.path / "train").exists()


def test_what_a_run_replaces_does_not_change_the_entry(cache, tmp_path):
    first = finished(tmp_path, "a", "first")
    cache.keep(STAGE, first, RECORD)
    file = first.path / "train/lora/done.json"
    temporary = file.with_name(".done.json.tmp")
    temporary.write_text("second")
    temporary.replace(file)
    other = RunFolder(tmp_path / "b")
    other.path.mkdir()
    cache.take(STAGE, other)
    assert (other.path / "train/lora/done.json").read_text() == "first"


def work(runs: str, name: str, seconds: float, started) -> None:
    """Do the stage in a run folder, or take it; the time that others must not work too."""
    cache, folder = SharedCache.of(runs), RunFolder(Path(runs) / name)
    folder.path.mkdir(exist_ok=True)
    with cache.hold(STAGE, lambda: None):
        if cache.take(STAGE, folder) is None:
            started.set()
            time.sleep(seconds)
            with (Path(runs) / "computed").open("a") as file:
                file.write(f"{name}\n")
            cache.keep(STAGE, finished(Path(runs), name), RECORD)
        else:
            folder.write_record(RECORD)


def test_of_runs_that_start_at_once_one_works(tmp_path):
    started = multiprocessing.Event()
    names = [f"run{number}" for number in range(4)]
    processes = [
        multiprocessing.Process(target=work, args=(str(tmp_path), name, 0.3, started))
        for name in names
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len((tmp_path / "computed").read_text().split()) == 1
    weights = {(tmp_path / name / "train/lora/adapter/weights").read_bytes() for name in names}
    assert len(weights) == 1


def test_one_that_is_killed_while_it_works_leaves_nothing_and_another_works(tmp_path):
    started = multiprocessing.Event()
    first = multiprocessing.Process(target=work, args=(str(tmp_path), "a", 100.0, started))
    first.start()
    assert started.wait(60)
    os.kill(first.pid, signal.SIGKILL)
    first.join(60)
    work(str(tmp_path), "b", 0.0, multiprocessing.Event())
    assert (tmp_path / "computed").read_text().split() == ["b"]


def test_one_that_is_killed_while_it_adds_an_entry_leaves_no_half_entry(tmp_path, cache):
    finished(tmp_path, "a")
    script = (
        "import os, sys; from pathlib import Path; import hpc_llm.pipeline.cache as c;"
        "sys.path.insert(0, sys.argv[2]); from test_cache import STAGE, RECORD, RunFolder;"
        "real = c._link;"
        "c._link = lambda a, b: os.kill(os.getpid(), 9) if a.name == 'weights' else real(a, b);"
        "runs = sys.argv[1];"
        "c.SharedCache.of(runs).keep(STAGE, RunFolder(Path(runs) / 'a'), RECORD)"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)]
    assert subprocess.run(command, check=False, timeout=120).returncode == -9
    assert cache.entries() == []
    left = [path for path in cache.path.iterdir() if path.is_dir()]
    assert len(left) == 1
    cache.clean(10**12)
    assert not [path for path in cache.path.iterdir() if path.is_dir()]


def test_who_waits_may_be_stopped(tmp_path, cache):
    started = multiprocessing.Event()
    first = multiprocessing.Process(target=work, args=(str(tmp_path), "a", 100.0, started))
    first.start()
    assert started.wait(60)
    with pytest.raises(Stopped), cache.hold(STAGE, lambda: "SIGTERM"):
        pass
    first.kill()
    first.join()


def test_cleaning_removes_the_oldest_first_and_nothing_that_a_run_holds(cache, tmp_path):
    for number, name in enumerate("abc"):
        folder = finished(tmp_path, name)
        record = {**RECORD, "fingerprint": name}
        stage = replace(STAGE, fingerprint=name)
        folder.write_record(record)
        cache.keep(stage, folder, record)
        users = cache.entry(stage).path / "users.jsonl"
        os.utime(users, (1e9 + number, 1e9 + number))
    names = [entry.path.name for entry in cache.entries()]
    assert names == ["train-lora-a", "train-lora-b", "train-lora-c"]
    assert cache.clean(0) == []  # all runs are there
    for name in "ab":
        (tmp_path / name / "record.jsonl").unlink()
    size = cache.entries()[0].size
    assert [entry.path.name for entry in cache.clean(2 * size + 100)] == ["train-lora-a"]
    assert [entry.path.name for entry in cache.clean(0)] == ["train-lora-b"]
    assert json.loads((cache.entries()[0].path / "record.json").read_text())["fingerprint"] == "c"
