"""Prefetch the rows of the next step in a thread during the current step.

Packed rows are read from memory at 13 to 37 million tokens per second; a GPU trains on a million at
most. But documents are read in random order, so on a network file system each uncached read costs
its latency, which prefetching hides. It uses a thread, not a process: a worker process could be
killed by a signal that training should survive.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor

from hpc_llm.training.data.batches import BatchPlan
from hpc_llm.training.data.mixture import Reader
from hpc_llm.training.data.rows import Rows

__all__ = ["Prefetch"]


class Prefetch:
    """Reads the rows of one data-parallel rank, one step ahead."""

    def __init__(self, reader: Reader, plan: BatchPlan, share: int) -> None:
        """Reading starts with the first `take`."""
        self.reader, self.plan, self.share = reader, plan, share
        self.waited = 0.0
        """Total seconds spent waiting for rows."""
        self._thread = ThreadPoolExecutor(1, "reader")
        self._ahead: dict[int, Future[list[Rows]]] = {}

    def take(self, step: int) -> list[Rows]:
        """Return the rows of each accumulation step of `step`; start reading the next step."""
        began = time.monotonic()
        ahead = self._ahead.pop(step, None)
        rows = self._read(step) if ahead is None else ahead.result()
        self._ahead = {step + 1: self._thread.submit(self._read, step + 1)}
        self.waited += time.monotonic() - began
        return rows

    def _read(self, step: int) -> list[Rows]:
        length = self.plan.length(step)
        return [self.reader.read(part, length) for part in self.plan.indices(step, self.share)]
