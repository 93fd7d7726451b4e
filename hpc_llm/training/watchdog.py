"""The watchdog: reports the ranks that keep the others waiting, and ends a run that hangs.

If one rank is stuck, the others wait in a collective forever, and the log shows nothing. A thread
on each rank posts the position of its loop to the store of the process group. When the rank's own
loop has not advanced for `stall_minutes`, the thread reads all posts, reports the lagging ranks and
ends the process (`srun --kill-on-bad-exit` then ends the others). The loop itself only sets two
variables.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch

from hpc_llm.distributed import Ranks
from hpc_llm.errors import EXIT_FAILED

__all__ = ["Watchdog", "behind"]

PHASES = ("reads", "synchronises", "computes", "updates", "evaluates", "saves")
SILENT = 3  # posts that may be missing before a rank counts as silent


def behind(posts: list[dict[str, Any] | None], now: float, interval: float) -> list[str]:
    """Describe the ranks that the others wait for: the silent ones, else the furthest behind.

    `posts` holds the newest post of each rank, None if there is none; `now` is seconds since 1970.
    """
    names = []
    for rank, post in enumerate(posts):
        if post is None or now - post["time"] > SILENT * interval:
            host = f" on {post['host']}" if post else ""
            names.append(f"rank {rank}{host} is silent")
    if names:
        return names
    known = [post for post in posts if post is not None]
    least = min((post["step"], post["phase"]) for post in known)
    return [
        f"rank {rank} on {post['host']} {PHASES[post['phase']]} (step {post['step']})"
        for rank, post in enumerate(known)
        if (post["step"], post["phase"]) == least
    ]


class Watchdog:
    """Context manager around a training loop, which calls `at` in every phase."""

    def __init__(
        self, ranks: Ranks, stall_minutes: float | None, stalled: Callable[[list[str]], None]
    ) -> None:
        """`stalled` is called with the lagging ranks before the exit; None minutes: disabled."""
        self._ranks, self._stalled = ranks, stalled
        self._limit = None if stall_minutes is None else 60 * stall_minutes
        self._interval = min(10.0, (self._limit or 10.0) / 5)
        self._place = (0, 0)
        self._moved = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def at(self, step: int, phase: str) -> None:
        """Record the position of the loop: `phase` of PHASES in `step`."""
        self._place = (step, PHASES.index(phase))
        self._moved = time.monotonic()

    def __enter__(self) -> "Watchdog":
        """Start watching."""
        if self._limit is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop watching."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._interval + 1)

    def _watch(self) -> None:
        assert self._limit is not None
        # rank 0 reports; the others only if it is rank 0 that hangs
        patience = self._limit + (0.0 if self._ranks.is_first else 4 * self._interval)
        self._post()  # publishes the host name
        while not self._ended.wait(self._interval):
            self._post()
            if time.monotonic() - self._moved > patience:
                self._end()

    def _post(self) -> None:
        step, phase = self._place
        post = {"step": step, "phase": phase, "time": time.time(), "host": socket.gethostname()}
        _store().set(f"watchdog/{self._ranks.rank}", json.dumps(post))

    def _posts(self) -> list[dict[str, Any] | None]:
        store = _store()
        keys = [f"watchdog/{rank}" for rank in range(self._ranks.world_size)]
        return [json.loads(store.get(key)) if store.check([key]) else None for key in keys]

    def _end(self) -> None:
        try:
            names = behind(self._posts(), time.time(), self._interval)
        except (RuntimeError, ValueError) as error:  # the store is on rank 0, which may be gone
            names = [f"rank 0 does not answer ({str(error).splitlines()[0]})"]
        minutes = (time.monotonic() - self._moved) / 60
        sys.stderr.write(
            f"[rank {self._ranks.rank}] hpc-llm: no step for {minutes:.1f} minutes "
            f"(guards.stall_minutes): {'; '.join(names)}; ending\n"
        )
        sys.stderr.flush()
        try:
            self._stalled(names)
        finally:
            os._exit(EXIT_FAILED)


def _store() -> Any:
    return torch.distributed.distributed_c10d._get_default_store()
