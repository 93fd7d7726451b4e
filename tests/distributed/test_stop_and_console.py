"""The stop flag with real signals, and what each rank prints."""

import logging
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpc_llm.distributed import STOP_SIGNALS, Ranks, StopFlag, say, set_up_console


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_only_sets_the_flag(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopFlag() as flag:
        assert flag.reason is None
        signal.raise_signal(number)
        assert flag.reason == number.name
        signal.raise_signal(signal.SIGUSR1)
        assert flag.reason == number.name  # the first reason stays
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_what_nohup_ignores_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopFlag() as flag:
            signal.raise_signal(number)
            assert flag.reason is None
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


CLOSED = """
import sys, time
from hpc_llm.distributed import StopFlag
with StopFlag() as flag:
    print("ready", flush=True)
    while flag.reason is None:
        time.sleep(0.01)
print("saved", flush=True)  # an error on a closed terminal
print("saved", flush=True, file=sys.stderr)
open(sys.argv[1], "w").write(flag.reason)
"""


def test_a_closed_terminal_stops_a_run_that_can_still_save(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", CLOSED, str(tmp_path / "saved")])
    assert os.read(terminal, 5) == b"ready"
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (tmp_path / "saved").read_text() == "SIGHUP"


def test_handlers_come_back_after_an_error() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        with pytest.raises(RuntimeError), StopFlag():
            raise RuntimeError
        signal.raise_signal(signal.SIGUSR1)
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


HELD = """
import os, signal
from hpc_llm.distributed import HELD_BACK, StopFlag
signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
os.kill(os.getpid(), signal.SIGUSR1)  # by default it would end this process
told = []
with StopFlag(told=told.append) as flag:
    assert flag.reason == "SIGUSR1"
    os.kill(os.getpid(), signal.SIGTERM)
assert told == ["SIGUSR1"]
"""
HELPER = """
import os, signal, subprocess, time
from hpc_llm.distributed import StopFlag, unreached
with StopFlag() as flag:
    with unreached():
        helper = subprocess.Popen(["sleep", "60"])
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.reason is None
    assert flag.reason == "SIGTERM"
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGKILL):
    helper.send_signal(number)
    time.sleep(0.01)
assert helper.wait(timeout=10) == -signal.SIGKILL
"""


@pytest.mark.parametrize("program", [HELD, HELPER], ids=["held back before", "helpers"])
def test_signals_that_wait_are_noted_and_helpers_are_not_reached(program: str) -> None:
    # in a process of one thread: a signal to this one may reach another of its threads
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_signal_during_a_long_call() -> None:
    with StopFlag() as flag:
        sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        sender.start()
        time.sleep(0.2)
        sender.join()
        assert flag.reason == "SIGTERM"


def test_stop_file_and_deadline(tmp_path: Path) -> None:
    with StopFlag(stop_file=tmp_path / "stop", deadline=time.time() + 3600) as flag:
        assert flag.reason is None
        (tmp_path / "stop").touch()
        assert f"stop file {tmp_path / 'stop'}" in flag.reason
    with StopFlag(deadline=time.time() - 1) as flag:
        assert flag.reason == "deadline"
    with StopFlag(deadline=time.time() - 1, deadline_name="train.max_hours") as flag:
        assert flag.reason == "train.max_hours"


@pytest.mark.parametrize(("error", "code"), [("Stopped", 75), ("ValueError", -signal.SIGTERM)])
def test_rank_that_stopped_outlives_sigterm_on_its_way_out(error: str, code: int) -> None:
    program = f"""if True:
        import atexit, os, signal, sys
        from hpc_llm.distributed import StopFlag
        from hpc_llm.errors import Stopped
        atexit.register(os.kill, os.getpid(), signal.SIGTERM)  # as srun does to the slower ranks
        try:
            with StopFlag():
                raise {error}
        except {error}:
            sys.exit(75)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    assert subprocess.run([sys.executable, "-c", program], env=environment).returncode == code


@pytest.fixture
def _console() -> Iterator[None]:
    logger = logging.getLogger("hpc_llm")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.usefixtures("_console")
def test_only_the_first_rank_talks(capsys: pytest.CaptureFixture[str]) -> None:
    warn = logging.getLogger("hpc_llm.training").warning
    for rank in (0, 1):
        set_up_console(Ranks(rank=rank, world_size=2, master_port=12345))
        say("100 % read")
        warn("slow")
    set_up_console(Ranks())
    say("alone")
    streams = capsys.readouterr()
    assert streams.err.splitlines() == [
        "[rank 0] 100 % read",
        "[rank 0] slow",
        "[rank 1] slow",
        "alone",
    ]
    assert streams.out == ""
