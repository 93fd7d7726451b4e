"""Several ranks on this machine: what srun does on a cluster, for a laptop or one node.

Signals reach all ranks, the first failure ends all, and no orphans remain: if this process is
killed, the kernel kills the ranks (prctl(2), PR_SET_PDEATHSIG).
"""

import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO

from hpc_llm.distributed import (
    HELD_BACK,
    STOP_SIGNALS,
    Ranks,
    caught,
    child_environment,
    export,
    leave_closed_terminal,
    python_module,
    say,
)
from hpc_llm.errors import EXIT_REQUEUE

__all__ = ["run_ranks"]

RANK_COMMAND = python_module("hpc_llm.app")
FORWARDED = (*STOP_SIGNALS, signal.SIGINT)
GRACE_SECONDS = 10.0  # from SIGTERM to SIGKILL
POLL_SECONDS = 0.05
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_ranks(
    arguments: Sequence[str],
    processes: int,
    environment: Mapping[str, str],
    *,
    command: Sequence[str] = RANK_COMMAND,
) -> int:
    """Run `command` with `arguments` as `processes` ranks and return their common exit code.

    Each rank gets `environment` and the variables of `export`; OMP_NUM_THREADS defaults to this
    process's cores / processes. Rank 0 keeps the terminal; lines of the others are prefixed with
    `[rank 1] `. The exit code is 0 if all ranks return 0, EXIT_REQUEUE if some return that and the
    rest 0, else that of the first rank that failed (128 + signal if it was killed); the others
    then get SIGTERM and, 10 seconds later, SIGKILL. Call it in the main thread.
    """
    ranks: list[subprocess.Popen[bytes]] = []
    copiers: list[threading.Thread] = []
    with _forward_signals(ranks):
        try:
            for variables in _variables(processes, environment):
                ranks.append(_start([*command, *arguments], variables))
            copiers += _start_copiers(ranks)
            return _wait(ranks)
        finally:
            _end(ranks)
            for copier in copiers:  # not for ever: a child of a rank may hold the pipe open
                copier.join(timeout=1)


def _variables(processes: int, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield the environment of each rank."""
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    port = _free_port()
    for rank in range(processes):
        place = Ranks(
            rank=rank,
            world_size=processes,
            local_rank=rank,
            local_world_size=processes,
            master_port=port,
        )
        yield {"OMP_NUM_THREADS": str(threads), **environment, **export(place)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start one rank in a new session, so that Ctrl-C reaches it once, through this process."""
    first = environment["RANK"] == "0"
    return subprocess.Popen(
        command,
        env=child_environment(environment),
        stdin=None if first else subprocess.DEVNULL,
        stdout=None if first else subprocess.PIPE,
        stderr=None if first else subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_die_with(os.getpid()),
    )


def _die_with(parent: int) -> Callable[[], None]:
    """Return the `preexec_fn` of a rank: request SIGKILL when `parent` dies."""
    libc = ctypes.CDLL(None)

    def request() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)  # until the rank handles them
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the request
            os._exit(128 + signal.SIGKILL)

    return request


def _start_copiers(ranks: list[subprocess.Popen[bytes]]) -> Iterator[threading.Thread]:
    """Start threads that forward the output of ranks above 0."""
    for number, process in enumerate(ranks):
        for stream, target in ((process.stdout, 1), (process.stderr, 2)):
            if stream is not None:
                copier = threading.Thread(
                    target=_copy, args=(stream, target, f"[rank {number}] ".encode()), daemon=True
                )
                copier.start()
                yield copier


def _copy(stream: IO[bytes], target: int, prefix: bytes) -> None:
    """Copy lines to a file descriptor, each with `prefix` in a single write.

    Lines that cannot be written (a closed terminal) are dropped: the rank must not wait for them.
    """
    with stream:
        for line in stream:
            with suppress(OSError):
                os.write(target, prefix + line.removesuffix(b"\n") + b"\n")


@contextmanager
def _forward_signals(ranks: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Inside the block, forward signals of this process to all of `ranks`."""

    def forward(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            leave_closed_terminal()
        for process in ranks:
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in caught(FORWARDED)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(ranks: list[subprocess.Popen[bytes]]) -> int:
    """Wait until all ranks have ended cleanly or one has failed; return the exit code."""
    while True:
        codes = [code for process in ranks if (code := process.poll()) is not None]
        for rank, process in enumerate(ranks):
            code = process.returncode
            if code not in (None, 0, EXIT_REQUEUE):
                _say_killed(rank, code)
                return code if code > 0 else 128 - code
        if len(codes) == len(ranks):
            return max(codes)
        time.sleep(POLL_SECONDS)


def _say_killed(rank: int, code: int) -> None:
    """Report a rank that a signal has ended: it could not say why itself."""
    if code >= 0:
        return
    why = {
        -signal.SIGKILL: ", as the kernel does for lack of memory",
        -signal.SIGABRT: ": native code aborted, often for lack of memory or threads (ulimit -a)",
        -signal.SIGBUS: ", as for a full disk or a truncated file that is mapped",
    }
    say(f"rank {rank} was ended by {signal.Signals(-code).name}{why.get(code, '')}")


def _end(ranks: list[subprocess.Popen[bytes]]) -> None:
    """End running ranks: SIGTERM, 10 seconds, then SIGKILL to them and their children."""
    for process in ranks:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in ranks:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
