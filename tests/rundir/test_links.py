"""Links planted in a run folder, and run folders of other users."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from errors import user_error

from hpc_llm.accounting import Ledger
from hpc_llm.distributed import Ranks
from hpc_llm.launch import copy_code
from hpc_llm.pipeline.cache import SharedCache
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.pipeline.lock import hold_folder
from hpc_llm.pipeline.table import ROWS
from hpc_llm.rundir import (
    RunFolder,
    Start,
    append_line,
    note_start,
    open_regular,
    refuse_foreign,
    replaced_folder,
    take_folder,
    temporary_beside,
    write_json,
    write_text,
)
from hpc_llm.tracking import EventLog

LINE = {"a": 1}
MINE = "the user's own file"


def hold(folder: Path) -> None:
    with hold_folder(RunFolder(folder), Ranks(), Start()):
        pass


def replace(path: Path) -> None:
    with replaced_folder(path) as new:
        (new / "a").write_text("1")


WRITERS = {
    ".lock": lambda path: hold(path.parent),
    "starts.jsonl": lambda path: take_folder(path, Start()),
    "jobs.jsonl": lambda path: append_line(path, LINE),
    "record.jsonl": lambda path: RunFolder(path.parent).write_record(LINE),
    "events.jsonl": lambda path: EventLog(path).resume("lora", 1),
    "corpus": replace,
    "code": lambda path: copy_code(path.parent, None),
}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file of the user outside of the run folder."""
    (tmp_path / "mine").write_text(MINE)
    (tmp_path / "run").mkdir()
    return tmp_path / "mine"


@pytest.mark.parametrize("name", WRITERS)
def test_a_planted_link_is_refused(name: str, mine: Path, tmp_path: Path) -> None:
    path = tmp_path / "run" / name
    path.symlink_to(mine)
    with user_error(str(path)):
        WRITERS[name](path)
    assert mine.read_text() == MINE
    path.unlink()
    WRITERS[name](path)  # without the link it works
    assert path.exists()


@pytest.mark.parametrize("name", WRITERS)
def test_a_link_to_nothing_makes_no_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / name
    path.symlink_to(tmp_path / "new")
    with user_error(str(path)):
        WRITERS[name](path)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_only_regular_files_are_written(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with user_error(str(path)):
        append_line(path, LINE)
    with user_error(str(path)):
        open_regular(path, os.O_WRONLY)


@pytest.mark.parametrize("write", [write_text, write_json])
def test_a_replaced_file_leaves_the_target_of_a_link(write, mine: Path, tmp_path: Path) -> None:
    path = tmp_path / "run" / "summary.json"
    path.symlink_to(mine)
    write(path, "new")
    assert mine.read_text() == MINE
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


def test_temporary_names_cannot_be_planted_and_do_not_pile_up(mine: Path, tmp_path: Path) -> None:
    path = tmp_path / "run" / "a[1].json"
    names = {temporary_beside(path).name for _ in range(100)}
    assert len(names) == 100
    dead = 2**22 + 1  # above the largest process id of Linux
    left = [path.with_name(f".{path.name}.{dead}-{number:08x}.tmp") for number in range(3)]
    left[0].write_text("half")
    left[1].mkdir()
    left[2].symlink_to(mine)
    (tmp_path / "run" / ".a1.json.1-0.tmp").write_text("of another file")
    alive = path.with_name(f".{path.name}.{os.getpid()}-00000000.tmp")
    alive.write_text("of a writer that works")
    write_text(path, "new")
    assert sorted(os.listdir(tmp_path / "run")) == sorted(
        [alive.name, path.name, ".a1.json.1-0.tmp"]
    )
    assert mine.read_text() == MINE


def test_the_lock_of_the_shared_cache_follows_no_link(mine: Path, tmp_path: Path) -> None:
    stage = Stage(
        name="corpus", row=ROWS["corpus"], needs=(), outputs=(), owns=(), fingerprint="f",
        settings={},
    )  # fmt: skip
    cache = SharedCache.of(str(tmp_path))
    cache.path.mkdir(parents=True)
    lock = cache.path / f".{cache.entry(stage).path.name}.lock"
    lock.symlink_to(mine)
    with user_error(str(lock)), cache.hold(stage, lambda: None):
        pass
    assert mine.read_text() == MINE


def test_a_request_to_stop_is_noted_in_no_link(mine: Path, tmp_path: Path) -> None:
    log = tmp_path / "run" / "starts.jsonl"
    log.symlink_to(mine)
    note_start(log, "asked", reason="SIGTERM")  # in a signal handler: it must not raise
    assert mine.read_text() == MINE
    assert Ledger(tmp_path / "run/ledger.jsonl").rows() == []


@pytest.mark.parametrize(
    ("mode", "refused"), [(0o777, True), (0o702, True), (0o1777, False), (0o775, False)]
)
def test_a_folder_that_everyone_may_write_to(mode, refused, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(mode)
    with ExitStack() as stack:
        if refused:
            stack.enter_context(user_error(str(folder), f"{mode:o}", "HPC_LLM_TRUST_FOLDER=1"))
        hold(folder)
    monkeypatch.setenv("HPC_LLM_TRUST_FOLDER", "1")
    hold(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_of_another_user(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    os.chown(folder, 12345, -1)
    with user_error(str(folder), "12345", "HPC_LLM_TRUST_FOLDER=1"):
        hold(folder)
    assert os.listdir(folder) == []
    refuse_foreign(tmp_path / "none")
    monkeypatch.setenv("HPC_LLM_TRUST_FOLDER", "1")
    hold(folder)
