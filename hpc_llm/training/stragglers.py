"""Which rank computes slower than the others, and on which host?

With equal shares all ranks wait for the slowest at every step, so the times of steps look alike
everywhere. A forward pass waits for nobody, so its time is the rank's own; but for ZeRO-3, which
gathers the weights in it.
"""

import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median_low

import torch

from hpc_llm.training import process_group

__all__ = ["ForwardClock", "Stragglers", "slow_ranks"]

LEAST_SECONDS = 0.01  # by which a forward pass has to be slower: below lies the noise of a host
IN_A_ROW = 3  # log lines after which a slow rank is named


class ForwardClock:
    """Times forward passes; on a GPU by its own events, which nothing waits for."""

    def __init__(self, device: torch.device) -> None:
        """Time what runs on `device`."""
        self._on_gpu = device.type == "cuda"
        self._seconds, self._passes = 0.0, 0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Time one pass."""
        self._passes += 1
        if self._on_gpu:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            yield
            last.record()
            self._events.append((first, last))
        else:
            began = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - began

    def take(self) -> float:
        """Return the mean seconds of the passes since the last call; waits for the GPU."""
        if self._events:
            self._events[-1][1].synchronize()
            self._seconds += sum(a.elapsed_time(b) for a, b in self._events) / 1000
        mean = self._seconds / max(1, self._passes)
        self._seconds, self._passes, self._events = 0.0, 0, []
        return mean


def slow_ranks(seconds: Sequence[float], factor: float) -> list[int]:
    """Return the ranks whose `seconds` are `factor` times the median's or more."""
    usual = median_low(seconds)
    least = max(usual * factor, usual + LEAST_SECONDS)
    return [rank for rank, own in enumerate(seconds) if own >= least]


class Stragglers:
    """Names a rank once, when it was slow in several log lines in a row (collective)."""

    def __init__(self, factor: float | None) -> None:
        """`factor`: how much slower than the median is slow; None: nothing is named."""
        self._factor = factor
        self._slow: Counter[int] = Counter()
        self._hosts: list[str] = []

    def look(self, seconds: float) -> tuple[float, list[str]]:
        """Take this rank's seconds of a forward pass; every rank calls this at once.

        Returns how many times the median the slowest rank takes, and whom to name now.
        """
        every = process_group.all_values(seconds)
        usual = median_low(every)
        worst = max(every) / usual if usual > 0 else 1.0
        if self._factor is None:
            return worst, []
        slow = slow_ranks(every, self._factor)
        self._slow = Counter({rank: self._slow[rank] + 1 for rank in slow})
        due = [rank for rank in slow if self._slow[rank] == IN_A_ROW]
        if due and not self._hosts:  # all ranks see the same, so all come here
            self._hosts = process_group.all_texts(socket.gethostname())
        return worst, [
            f"rank {rank} on {self._hosts[rank]} takes {every[rank] / usual:.1f} times as long as "
            f"the median rank for a forward pass ({every[rank]:.3g} s)"
            for rank in due
        ]
