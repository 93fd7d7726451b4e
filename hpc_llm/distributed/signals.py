"""When to stop: a flag that signals, a file or the clock raise, and that the loop asks.

A rank that leaves alone leaves the others in a collective for ever. So the handlers only note the
reason; the loop asks `flag.reason` at a step's boundary, agrees on it with the other ranks, and all
of them save the same step.

A process takes about two seconds to get here, and the default of these signals is to end it. So who
starts ranks blocks `HELD_BACK` first: such a signal then waits, and is noted when the flag is up.

Slurm sends SIGTERM for scancel, preemption and requeue, and the signal of `--signal` before the
time limit; some sites send SIGUSR1 or SIGUSR2 for preemption.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from hpc_llm.errors import Stopped

__all__ = ["HELD_BACK", "STOP_SIGNALS", "StopFlag", "unreached"]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
HELD_BACK = (signal.SIGUSR1, signal.SIGUSR2)  # not SIGTERM: one that hangs at its start must end


@contextmanager
def unreached() -> Iterator[None]:
    """Inside, stop signals wait, and processes that are started here never get them.

    Slurm sends its signals to all processes of a step. A helper that they end (that of W&B) would
    lose what the rank tells it last.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopFlag:
    """Context manager: inside it the stop signals only set a flag; at its end all is as before.

    Only after `Stopped` the signals are ignored until the process is gone: as soon as the first
    rank has left with EXIT_REQUEUE, `srun --kill-on-bad-exit=1` sends SIGTERM to the others, and
    one that died of it would turn the step's 75 into 143, which is not requeued.

    `stop_file`: its existence is a wish to stop, for those who cannot send signals to a job. Give
    it to the first rank only; one look per step from one rank is nothing to a shared file system.
    `told` is called once, in the handler of the first signal, with its name.
    `deadline`: Unix time in seconds after which to stop, for the reason `deadline_name`.
    To be entered in the main thread, as Python asks of signal handlers.
    """

    def __init__(
        self,
        *,
        stop_file: Path | None = None,
        deadline: float | None = None,
        deadline_name: str = "deadline",
        told: Callable[[str], None] | None = None,
    ) -> None:
        """Remember what to watch; nothing is installed yet."""
        self._stop_file = stop_file
        self._deadline = deadline
        self._deadline_name = deadline_name
        self._told = told
        self._reason: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def reason(self) -> str | None:
        """Why to stop, for example `SIGTERM`; None to go on. The first reason stays."""
        if self._reason is None:
            if self._stop_file is not None and self._stop_file.exists():
                self._reason = f"stop file {self._stop_file}, to be removed first"
            elif self._deadline is not None and time.time() >= self._deadline:
                self._reason = self._deadline_name
        return self._reason

    def _note(self, number: int, _frame: FrameType | None) -> None:
        first, self._reason = self._reason is None, self._reason or signal.Signals(number).name
        if first and self._told is not None:
            self._told(self._reason)

    def __enter__(self) -> "StopFlag":
        """Install the handlers, and take what came before them."""
        for number in STOP_SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # what has waited comes now
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Put back the handlers that were there before, or ignore the signals after `Stopped`."""
        stopped = kind is not None and issubclass(kind, Stopped)
        for number, before in self._before.items():
            handler = signal.SIG_IGN if stopped else before
            if handler is not None:  # None: installed from C, and Python cannot put it back
                signal.signal(number, handler)
        self._before.clear()
