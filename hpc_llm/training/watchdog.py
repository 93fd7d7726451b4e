"""The watchdog: names the ranks that keep the others waiting, and ends a run that hangs.

Ranks that wait in a collective wait for ever when one of them is stuck, and a log says nothing of
it. Each rank's thread posts in the store of the process group where its loop is; when a rank's own
loop has not moved for `stall_minutes` it reads all posts, says who is behind, and ends the process
(`srun --kill-on-bad-exit` then ends the others). The loop itself only sets two numbers.
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

PHASES = ("reads", "agrees", "computes", "updates", "saves")
SILENT = 3  # posts that may be missing before a rank counts as gone


def behind(posts: list[dict[str, Any] | None], now: float, interval: float) -> list[str]:
    """Name the ranks that the others wait for: those that are silent, else those least far.

    `posts` are the newest of each rank, None where there never was one, `now` seconds since 1970.
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
    """Context manager around a training loop, which calls `at` where it goes on."""

    def __init__(
        self, ranks: Ranks, stall_minutes: float | None, told: Callable[[list[str]], None]
    ) -> None:
        """`told` is called with the names before the process ends; None minutes: no watching."""
        self._ranks, self._told = ranks, told
        self._limit = None if stall_minutes is None else 60 * stall_minutes
        self._interval = min(10.0, (self._limit or 10.0) / 5)
        self._place = (0, 0)
        self._moved = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def at(self, step: int, phase: str) -> None:
        """Note where the loop is: `phase` of PHASES of `step`."""
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
        # the first rank reports; the others follow if it is the one that hangs
        patience = self._limit + (0.0 if self._ranks.is_first else 4 * self._interval)
        self._post()  # the host is known from now on
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
            self._told(names)
        finally:
            os._exit(EXIT_FAILED)


def _store() -> Any:
    return torch.distributed.distributed_c10d._get_default_store()
