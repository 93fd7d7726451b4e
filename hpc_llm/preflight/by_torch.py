"""Clocks and bandwidth over torch.distributed: gloo on CPUs, nccl on GPUs."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed import PrefixStore

from hpc_llm.preflight.judge import clock_offset
from hpc_llm.preflight.links import Link
from hpc_llm.preflight.rendezvous import Rendezvous

__all__ = ["measure_clock", "torch_link"]

PINGS = 10


@contextmanager
def torch_link(
    rendezvous: Rendezvous, device: torch.device, size: int, wait_seconds: float
) -> Iterator[Link]:
    """Open the link over torch.distributed with messages of `size` bytes (collective).

    Raises `RuntimeError` if a peer does not answer within `wait_seconds`.
    """
    # a lost peer then raises an error that can be reported, instead of ending this process
    os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=PrefixStore("group", rendezvous.store),
        rank=rendezvous.ranks.rank,
        world_size=rendezvous.ranks.world_size,
        timeout=timedelta(seconds=wait_seconds),
    )
    message = torch.zeros(size // 4, device=device)  # float32

    def finish() -> None:
        if on_gpu:
            torch.cuda.synchronize(device)

    def send(rank: int) -> None:
        distributed.send(message, rank)
        finish()

    def receive(rank: int) -> None:
        distributed.recv(message, rank)
        finish()

    def all_reduce() -> None:
        distributed.all_reduce(message)
        finish()

    def barrier() -> None:
        distributed.all_reduce(torch.zeros(1))

    yield Link(
        name="nccl" if on_gpu else "gloo",
        bytes=4 * message.numel(),
        send=send,
        receive=receive,
        all_reduce=all_reduce,
        barrier=barrier,
    )
    barrier()  # a process that exits while gloo's threads are running may abort
    distributed.destroy_process_group()


def measure_clock(rank: int, leaders: list[int]) -> float | None:
    """Return the clock of this rank's node minus that of rank 0, in seconds.

    Rank 0 answers the other `leaders` (one rank per node) in turn; all other ranks return None.
    """
    if rank == 0:
        for leader in leaders:
            for _ in range(PINGS if leader else 0):
                distributed.recv(torch.zeros(1), leader)
                distributed.send(torch.tensor([time.time()], dtype=torch.float64), leader)
        return 0.0
    if rank not in leaders:
        return None
    return clock_offset([_ping() for _ in range(PINGS)])


def _ping() -> tuple[float, float, float]:
    remote = torch.zeros(1, dtype=torch.float64)
    sent = time.time()
    distributed.send(torch.zeros(1), 0)
    distributed.recv(remote, 0)
    return sent, float(remote), time.time()
