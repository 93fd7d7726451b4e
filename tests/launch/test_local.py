"""Ranks on this machine, with small Python programs in their place."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_llm.distributed import STOP_SIGNALS, Ranks, detect_ranks
from hpc_llm.launch import run_ranks

REPOSITORY = Path(__file__).resolve().parents[2]


def program(text: str) -> tuple[str, ...]:
    return (
        sys.executable,
        "-c",
        f"import os, signal, sys, time\nrank = os.environ['RANK']\n{text}",
    )


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_each_rank_learns_its_place_and_gets_the_arguments(tmp_path: Path) -> None:
    write = program(
        "import json\n"
        "place = {'argv': sys.argv[2:], 'environment': dict(os.environ)}\n"
        "json.dump(place, open(f'{sys.argv[1]}/{rank}', 'w'))"
    )
    arguments = [str(tmp_path), "run=a b", "x='\"$HOME\"'", ""]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    assert run_ranks(arguments, 2, environment, command=write) == 0
    places = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(2)]
    seen = [detect_ranks(place["environment"]) for place in places]
    assert seen == [
        Ranks(
            rank=rank,
            world_size=2,
            local_rank=rank,
            local_world_size=2,
            launcher="torchrun",
            master_port=seen[0].master_port,
            job_id=seen[0].job_id,
        )
        for rank in range(2)
    ]
    cores = len(os.sched_getaffinity(0))
    for place in places:
        assert place["argv"] == arguments[1:]
        assert int(place["environment"]["OMP_NUM_THREADS"]) == max(1, cores // 2)


def test_output_of_other_ranks_is_marked(capfd: pytest.CaptureFixture[str]) -> None:
    talk = program("print('out', rank, flush=True)\nprint('err', rank, end='', file=sys.stderr)")
    assert run_ranks([], 2, os.environ, command=talk) == 0
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == ["[rank 1] out 1", "out 0"]
    assert "[rank 1] err 1\n" in err
    assert "err 0" in err.replace("[rank 1] err 1\n", "")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(7) if rank == '1' else time.sleep(600)", 7),
        ("os.kill(os.getpid(), 9) if rank == '0' else time.sleep(600)", 137),
        ("time.sleep(0.5 * int(rank))\nsys.exit(75)", 75),  # the slower one is not cut off
    ],
)
def test_exit_code(text: str, code: int) -> None:
    assert run_ranks([], 2, os.environ, command=program(text)) == code


@pytest.mark.parametrize("name", ["SIGKILL", "SIGABRT", "SIGSEGV"])
def test_a_rank_that_a_signal_ended_is_named(name: str, caplog: pytest.LogCaptureFixture) -> None:
    number = signal.Signals[name]
    text = f"os.kill(os.getpid(), {int(number)}) if rank == '1' else time.sleep(600)"
    logger = logging.getLogger("hpc_llm")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, "hpc_llm"):
            assert run_ranks([], 2, os.environ, command=program(text)) == 128 + number
    finally:
        logger.removeHandler(caplog.handler)
    assert any("rank 1" in line and name in line for line in caplog.messages)


def test_rank_that_ignores_sigterm_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc_llm.launch.local.GRACE_SECONDS", 0.5)
    stubborn = program(
        "ready = sys.argv[1] + '/ready'\n"
        "if rank == '0':\n"
        "    while not os.path.exists(ready): time.sleep(0.02)\n"
        "    sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "if child: open(ready + '_', 'w').write(f'{os.getpid()} {child}')\n"
        "if child: os.rename(ready + '_', ready)\n"
        "time.sleep(600)"
    )
    assert run_ranks([str(tmp_path)], 2, os.environ, command=stubborn) == 3
    for pid in (tmp_path / "ready").read_text().split():
        wait_until(lambda pid=int(pid): not lives(pid))


# A process of its own calls run_ranks, because these tests send it signals
CALLER = """
import os, sys
from hpc_llm.launch import run_ranks
sys.exit(run_ranks(sys.argv[2:], 2, os.environ, command=(sys.executable, "-c", sys.argv[1])))
"""


def start_caller(folder: Path, text: str) -> tuple[subprocess.Popen[bytes], list[int]]:
    """Start two ranks that each write their pid once they are ready; return caller and pids."""
    ready = "open(f'{sys.argv[1]}/{rank}_', 'w').write(str(os.getpid()))\n"
    ready += "os.rename(f'{sys.argv[1]}/{rank}_', f'{sys.argv[1]}/{rank}')\n"
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, program(text.replace("READY\n", ready))[2], str(folder)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    files = [folder / "0", folder / "1"]
    wait_until(lambda: all(file.exists() for file in files))
    return caller, [int(file.read_text()) for file in files]


@pytest.mark.parametrize("number", [*STOP_SIGNALS, signal.SIGINT])
def test_signals_reach_all_ranks(tmp_path: Path, number: signal.Signals) -> None:
    note = (
        "def note(number, frame):\n"
        "    open(f'{sys.argv[1]}/{rank}.signal', 'a').write(f'{number} ')\n"
        "    sys.exit(75)\n"
        f"signal.signal({int(number)}, note)\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.Signals)\n"  # as StopFlag does
        "READY\n"
        "time.sleep(600)"
    )
    caller, _ = start_caller(tmp_path, note)
    caller.send_signal(number)
    assert caller.wait(timeout=30) == 75
    assert [(tmp_path / f"{r}.signal").read_text() for r in (0, 1)] == [f"{int(number)} "] * 2


def test_no_rank_outlives_a_killed_parent(tmp_path: Path) -> None:
    text = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nREADY\ntime.sleep(600)"
    caller, pids = start_caller(tmp_path, text)
    assert all(lives(pid) for pid in pids)
    caller.kill()
    caller.wait(timeout=30)
    wait_until(lambda: not any(lives(pid) for pid in pids))
