"""Where ranks report what they found: torch's key-value store, which needs no healthy peer.

A collective waits for every rank, so a broken node would hide behind the hang that it causes. Here
each rank posts for itself, and rank 0 waits for so long and no longer.
"""

import json
import os
import time
from datetime import timedelta
from typing import Any

from torch.distributed import HashStore, PrefixStore, Store, TCPStore

from hpc_llm.distributed import Ranks
from hpc_llm.errors import UserError

__all__ = ["Meeting"]

PARTING_SECONDS = 3.0


class Meeting:
    """All ranks of a preflight; rank 0 leads."""

    def __init__(self, ranks: Ranks, wait_seconds: float) -> None:
        """Meet at the ranks' address and port. Raises `UserError` when rank 0 is not there."""
        self.ranks, self._wait = ranks, wait_seconds
        # torchrun listens at the port itself, and its later starts would find what this one posted
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
        """Send a text to rank 0."""
        self.store.set(f"{topic}/{self.ranks.rank}", json.dumps(value))

    def gather(self, topic: str, within: float = 0.0) -> list[Any]:
        """Return what each rank has posted under `topic`; None for those that have not in time.

        To be called by rank 0. The time is `preflight.wait_seconds`, and `within` more.
        """
        deadline = time.monotonic() + self._wait + within
        return [self._read(f"{topic}/{n}", deadline) for n in range(self.ranks.world_size)]

    def _read(self, key: str, deadline: float) -> Any:
        try:
            self.store.wait([key], timedelta(seconds=max(0.01, deadline - time.monotonic())))
        except RuntimeError:  # DistStoreError: not in time
            return None
        return json.loads(self.store.get(key))

    def announce(self, topic: str, value: Any) -> None:
        """Send a text to all ranks, as rank 0."""
        self.store.set(topic, json.dumps(value))

    def hear(self, topic: str) -> Any:
        """Return what rank 0 announces; `UserError` when it says nothing.

        Rank 0 may wait for a silent rank meanwhile, so this waits longer than it does.
        """
        try:
            self.store.wait([topic], timedelta(seconds=3 * self._wait))
            return json.loads(self.store.get(topic))
        except RuntimeError as error:
            raise self._unanswered(error) from error

    def part(self) -> None:
        """Leave together: the store ends with rank 0, and others may still read from it."""
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
            "give MASTER_ADDR and MASTER_PORT of a network that all nodes see, or a longer"
            " preflight.wait_seconds",
        )
