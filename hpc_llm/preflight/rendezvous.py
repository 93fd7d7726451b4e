"""Rendezvous of the preflight: ranks report through torch's key-value store, without collectives.

A collective waits for every rank, so a broken node would cause a hang that hides it. Here each rank
posts its own results, and rank 0 waits with a timeout.
"""

import json
import os
import time
from datetime import timedelta
from typing import Any

from torch.distributed import HashStore, PrefixStore, Store, TCPStore

from hpc_llm.distributed import Ranks
from hpc_llm.errors import UserError

__all__ = ["Rendezvous"]

PARTING_SECONDS = 3.0


class Rendezvous:
    """All ranks of a preflight, coordinated by rank 0."""

    def __init__(self, ranks: Ranks, wait_seconds: float) -> None:
        """Connect to the store at the master address and port.

        Raises `UserError` if rank 0 cannot be reached.
        """
        self.ranks, self._wait = ranks, wait_seconds
        # torchrun itself listens on the port; after a restart its store has the posts of this start
        agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store: Store = HashStore()
        if ranks.world_size > 1:
            try:
                store = TCPStore(
                    ranks.master_address,
                    ranks.master_port,
                    is_master=ranks.is_first and not agent,
                    timeout=timedelta(seconds=wait_seconds),
                    wait_for_workers=False,
                )
            except RuntimeError as error:  # DistNetworkError
                raise self._unanswered(error) from error
        self.store = PrefixStore(f"preflight/{restart}", store)

    def post(self, topic: str, value: Any) -> None:
        """Send a JSON value to rank 0."""
        self.store.set(f"{topic}/{self.ranks.rank}", json.dumps(value))

    def gather(self, topic: str, within: float = 0.0) -> list[Any]:
        """Return each rank's post under `topic`; None after a timeout.

        Call on rank 0 only. The timeout is `preflight.wait_seconds` plus `within` seconds.
        """
        deadline = time.monotonic() + self._wait + within
        return [self._read(f"{topic}/{n}", deadline) for n in range(self.ranks.world_size)]

    def _read(self, key: str, deadline: float) -> Any:
        try:
            self.store.wait([key], timedelta(seconds=max(0.01, deadline - time.monotonic())))
        except RuntimeError:  # DistStoreError: timeout
            return None
        return json.loads(self.store.get(key))

    def announce(self, topic: str, value: Any) -> None:
        """Send a JSON value to all ranks; call on rank 0 only."""
        self.store.set(topic, json.dumps(value))

    def hear(self, topic: str) -> Any:
        """Return rank 0's announcement; raises `UserError` after a timeout.

        Rank 0 may be waiting for a silent rank, so this timeout is longer than its own.
        """
        try:
            self.store.wait([topic], timedelta(seconds=3 * self._wait))
            return json.loads(self.store.get(topic))
        except RuntimeError as error:
            raise self._unanswered(error) from error

    def part(self) -> None:
        """Leave together: the store ends with rank 0, and other ranks may still read from it."""
        self.post("parting", True)
        deadline = time.monotonic() + PARTING_SECONDS
        for rank in range(self.ranks.world_size if self.ranks.is_first else 0):
            self._read(f"parting/{rank}", deadline)

    def _unanswered(self, error: RuntimeError) -> UserError:
        where = f"{self.ranks.master_address}:{self.ranks.master_port}"
        why = str(error).splitlines()[0]
        return UserError(
            "preflight",
            None,
            f"rank {self.ranks.rank} cannot reach rank 0 at {where} ({why})",
            "set MASTER_ADDR and MASTER_PORT on a network that all nodes can reach, or a longer "
            "preflight.wait_seconds",
        )
