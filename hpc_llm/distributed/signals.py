"""Graceful stop: a flag set by signals, a stop file or a deadline, and polled by the loop.

A rank that exits alone leaves the others waiting in a collective forever. So the handlers only
record the reason; the loop polls `flag.reason` at step boundaries, all-reduces it, and all ranks
save the same step.

A process takes about two seconds to get here, and the default action of these signals is to kill
it. So launchers block `HELD_BACK` first: such a signal stays pending until the handlers are
installed.

Slurm sends SIGTERM for scancel, preemption and requeue, and the signal of `--signal` before the
time limit; some sites send SIGUSR1 or SIGUSR2 for preemption. A terminal sends SIGHUP when it is
closed (the end of an ssh session) and SIGQUIT for Ctrl-\\; if they are ignored, as by `nohup`, they
stay ignored.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from hpc_llm.errors import Stopped

__all__ = [
    "HELD_BACK",
    "STOP_SIGNALS",
    "StopFlag",
    "caught",
    "leave_closed_terminal",
    "unreached",
]

OF_TERMINAL = (signal.SIGHUP, signal.SIGQUIT)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, *OF_TERMINAL)
HELD_BACK = (
    signal.SIGUSR1,
    signal.SIGUSR2,
)  # not SIGTERM: it must end a process that hangs at start-up


def caught(signals: Iterable[signal.Signals]) -> list[signal.Signals]:
    """Return those of `signals` to handle: not SIGHUP and SIGQUIT if this process ignores them.

    `nohup` ignores the first, a shell both for a command in the background.
    """
    return [
        number
        for number in signals
        if number not in OF_TERMINAL or signal.getsignal(number) is not signal.SIG_IGN
    ]


def leave_closed_terminal() -> None:
    """Send standard output and error to /dev/null if they are a terminal that has been closed.

    Each write would fail there, before the run has saved its state.
    """
    for descriptor in (1, 2):
        poll = select.poll()
        poll.register(descriptor, 0)
        if any(event & select.POLLHUP for _, event in poll.poll(0)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


@contextmanager
def unreached() -> Iterator[None]:
    """Inside the block, stop signals are blocked, also in child processes started there.

    Slurm signals all processes of a step. A helper process killed by them (that of W&B) would lose
    the last data of the rank.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopFlag:
    """Context manager: inside it stop signals only set a flag; on exit handlers are restored.

    After `Stopped` the signals are ignored instead until the process exits: as soon as one rank has
    exited with EXIT_REQUEUE, `srun --kill-on-bad-exit=1` sends SIGTERM to the others, and one
    killed by it would turn the step's exit code 75 into 143, which is not requeued.

    `stop_file`: its existence requests a stop, for users who cannot signal a job. Pass it on rank 0
    only; one check per step from one rank is no load for a shared file system.
    `told`: called once, in the handler of the first signal, with the name of the signal.
    `deadline`: Unix time in seconds after which to stop, with the reason `deadline_name`.
    Enter it in the main thread, as Python requires for signal handlers.
    """

    def __init__(
        self,
        *,
        stop_file: Path | None = None,
        deadline: float | None = None,
        deadline_name: str = "deadline",
        told: Callable[[str], None] | None = None,
    ) -> None:
        """Store the conditions; no handler is installed yet."""
        self._stop_file = stop_file
        self._deadline = deadline
        self._deadline_name = deadline_name
        self._told = told
        self._reason: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def reason(self) -> str | None:
        """The reason to stop, for example `SIGTERM`; None to continue. The first reason is kept."""
        if self._reason is None:
            if self._stop_file is not None and self._stop_file.exists():
                self._reason = f"stop file {self._stop_file}; remove it before resuming"
            elif self._deadline is not None and time.time() >= self._deadline:
                self._reason = self._deadline_name
        return self._reason

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            leave_closed_terminal()
        first, self._reason = self._reason is None, self._reason or signal.Signals(number).name
        if first and self._told is not None:
            self._told(self._reason)

    def __enter__(self) -> "StopFlag":
        """Install the handlers and deliver pending signals."""
        for number in caught(STOP_SIGNALS):
            self._before[number] = signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # delivers pending signals
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Restore the previous handlers, or ignore the signals after `Stopped`."""
        stopped = kind is not None and issubclass(kind, Stopped)
        for number, before in self._before.items():
            handler = signal.SIG_IGN if stopped else before
            if handler is not None:  # None: installed from C, which Python cannot restore
                signal.signal(number, handler)
        self._before.clear()
