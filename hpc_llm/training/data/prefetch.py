"""The rows of the next step, read in a thread while this one trains.

Packed rows are read at 13 to 37 million tokens a second from memory, against a million at most
that a GPU trains on. But documents stand in the file in another order than they are read in, so
where the file is on the network and not in memory yet each takes its latency: that is hidden here.
A thread, not a process: nothing there can be killed by a signal that the training should survive.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor

from hpc_llm.training.data.batches import BatchPlan
from hpc_llm.training.data.mixture import Reader
from hpc_llm.training.data.rows import Rows

__all__ = ["Prefetch"]


class Prefetch:
    """Reads what one rank needs, a step ahead."""

    def __init__(self, reader: Reader, plan: BatchPlan, rank: int) -> None:
        """Nothing is read before the first `take`."""
        self.reader, self.plan, self.rank = reader, plan, rank
        self.waited = 0.0
        """Seconds that were waited for rows, in all."""
        self._thread = ThreadPoolExecutor(1, "reader")
        self._ahead: dict[int, Future[list[Rows]]] = {}

    def take(self, step: int) -> list[Rows]:
        """Return the rows of each micro-step of `step` and begin to read the next step's."""
        began = time.monotonic()
        ahead = self._ahead.pop(step, None)
        rows = self._read(step) if ahead is None else ahead.result()
        self._ahead = {step + 1: self._thread.submit(self._read, step + 1)}
        self.waited += time.monotonic() - began
        return rows

    def _read(self, step: int) -> list[Rows]:
        length = self.plan.length(step)
        return [self.reader.read(part, length) for part in self.plan.indices(step, self.rank)]
