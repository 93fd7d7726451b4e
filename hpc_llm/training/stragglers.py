"""Straggler detection: report ranks that compute slower than the others, with their hosts.

In data parallelism all ranks wait for the slowest at every step, so step times are the same
everywhere. A forward pass has no collective, so its time is the rank's own, except under ZeRO-3,
which gathers the weights in it, and under sequence and tensor parallelism.
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

LEAST_SECONDS = 0.01  # smallest slowdown of a forward pass that counts: less is host noise
IN_A_ROW = 3  # consecutive log lines after which a slow rank is reported


class ForwardClock:
    """Times forward passes; on a GPU with CUDA events, without synchronisation."""

    def __init__(self, device: torch.device) -> None:
        """Time passes on `device`."""
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
        """Return the mean seconds per pass since the last call; synchronises with the GPU."""
        if self._events:
            self._events[-1][1].synchronize()
            self._seconds += sum(a.elapsed_time(b) for a, b in self._events) / 1000
        mean = self._seconds / max(1, self._passes)
        self._seconds, self._passes, self._events = 0.0, 0, []
        return mean


def slow_ranks(seconds: Sequence[float], factor: float) -> list[int]:
    """Return the ranks whose `seconds` are at least `factor` times the median."""
    usual = median_low(seconds)
    least = max(usual * factor, usual + LEAST_SECONDS)
    return [rank for rank, own in enumerate(seconds) if own >= least]


class Stragglers:
    """Reports a rank once, after several consecutive slow log lines (collective)."""

    def __init__(self, factor: float | None) -> None:
        """`factor`: slowdown over the median that counts as slow; None: no reports."""
        self._factor = factor
        self._slow: Counter[int] = Counter()
        self._hosts: list[str] = []

    def look(self, seconds: float) -> tuple[float, list[str]]:
        """Compare this rank's seconds per forward pass with all others (collective).

        Returns the slowest rank's time relative to the median, and the ranks to report now.
        """
        every = process_group.all_values(seconds)
        usual = median_low(every)
        worst = max(every) / usual if usual > 0 else 1.0
        if self._factor is None:
            return worst, []
        slow = slow_ranks(every, self._factor)
        self._slow = Counter({rank: self._slow[rank] + 1 for rank in slow})
        due = [rank for rank in slow if self._slow[rank] == IN_A_ROW]
        if due and not self._hosts:  # true on all ranks at once: collective
            self._hosts = process_group.all_texts(socket.gethostname())
        return worst, [
            f"rank {rank} on {self._hosts[rank]} takes {every[rank] / usual:.1f} times as long as "
            f"the median rank for a forward pass ({every[rank]:.3g} s)"
            for rank in due
        ]
