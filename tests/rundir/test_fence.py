"""The fence: of two processes that know the same run folder only the later one writes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc_llm.errors import Superseded
from hpc_llm.rundir import (
    Start,
    append_line,
    check_fence,
    join_start,
    note_start,
    publish,
    read_json,
    read_starts,
    replaced_folder,
    start_number,
    take_folder,
    write_json,
)
from hpc_llm.rundir.fence import release

LATER = (
    "import sys; from pathlib import Path; from hpc_llm.rundir import Start, take_folder\n"
    "take_folder(Path(sys.argv[1]), Start(job='8', hosts='node3', stage='train/lora', step=4))"
)


@pytest.fixture
def log(tmp_path: Path):
    yield tmp_path / "run" / "starts.jsonl"
    release()


@pytest.fixture
def ghost(log: Path):
    """This process has worked in the folder, and another one has begun there since."""
    log.parent.mkdir()
    assert take_folder(log, Start(job="7")) == 1
    append_line(log.parent / "events.jsonl", {"step": 1})
    write_json(log.parent / "best", {"step": 1})
    subprocess.run([sys.executable, "-c", LATER, log], check=True)
    return log.parent


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def test_a_ghost_writes_nothing(ghost: Path) -> None:
    other = ghost.parent / "half"
    other.write_text("x")
    before = everything(ghost)
    with pytest.raises(Superseded, match=r"start 2 \(job 8 on node3\)"):
        append_line(ghost / "events.jsonl", {"step": 2})
    with pytest.raises(Superseded):
        write_json(ghost / "best", {"step": 2})
    with pytest.raises(Superseded):
        publish(other, ghost / "weights")
    with pytest.raises(Superseded), replaced_folder(ghost / "model"):
        pass
    note_start(ghost / "starts.jsonl", "end", code=1)
    assert everything(ghost) == before


def test_a_folder_that_was_taken_in_the_meantime_is_not_replaced(ghost: Path) -> None:
    release()
    log = ghost / "starts.jsonl"
    assert take_folder(log, Start(job="9")) == 3
    writing = replaced_folder(ghost / "model")
    half = writing.__enter__()
    (half / "x").write_text("x")
    subprocess.run([sys.executable, "-c", LATER, log], check=True)
    with pytest.raises(Superseded):
        writing.__exit__(None, None, None)
    assert not (ghost / "model").exists()
    assert not half.exists()


def test_other_folders_are_free(ghost: Path) -> None:
    write_json(ghost.parent / "other.json", 1)
    write_json(ghost.parent / "run2.json", 2)
    assert read_json(ghost.parent / "run2.json") == 2


def test_own_lines_do_not_shut_it(log: Path) -> None:
    log.parent.mkdir()
    take_folder(log, Start(job="7", restart=2, hosts="node[1-2]", stage="train/lora", step=5))
    note_start(log, "asked", reason="SIGTERM")
    append_line(log.parent / "events.jsonl", {"step": 1})
    note_start(log, "end", code=75, why="stopped")
    (start,) = read_starts(log)
    assert (start.number, start.asked, start.code, start.why) == (1, "SIGTERM", 75, "stopped")
    assert start.place == ("train/lora", 5, "")


def test_removed_by_hand(log: Path) -> None:
    log.parent.mkdir()
    take_folder(log, Start())
    log.unlink()
    with pytest.raises(Superseded):
        check_fence(log.parent / "x")


def test_torn_lines_are_skipped(log: Path) -> None:
    log.parent.mkdir()
    take_folder(log, Start())
    with log.open("a") as handle:
        handle.write('{"event": "start", "sta')
    check_fence(log.parent / "x")
    append_line(log, {"event": "start", "start": 2, "token": "x", "job": None, "hosts": "a"})
    with pytest.raises(Superseded):
        check_fence(log.parent / "x")


def test_other_ranks_know_the_number(log: Path) -> None:
    assert start_number() == 0
    join_start(4)
    assert start_number() == 4
    check_fence(log.parent / "x")


def test_a_look_costs_less_than_a_millisecond(log: Path) -> None:
    """Counted in system calls: one open, one fstat, one close; no read while nothing was added."""
    log.parent.mkdir()
    for number in range(50):
        take_folder(log, Start(job=str(number)))
    check_fence(log)
    calls: list[str] = []
    sys.addaudithook(lambda event, _: calls.append(event))  # stays, and does no harm
    check_fence(log)
    seen = [event for event in calls if event.startswith(("open", "os."))]
    assert seen == ["open"]
    assert json.loads(log.read_text().splitlines()[-1])["start"] == 50


if __name__ == "__main__":  # how long a look takes here
    folder = Path(sys.argv[1])
    take_folder(folder / "starts.jsonl", Start())
    check_fence(folder / "x")
    began = time.perf_counter()
    for _ in range(10_000):
        check_fence(folder / "x")
    print(f"{(time.perf_counter() - began) / 10_000 * 1e6:.1f} microseconds")
