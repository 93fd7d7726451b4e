"""Bandwidth by mpi4py, where an MPI has started the ranks; it takes the site's own network."""

import numpy as np

from hpc_llm.preflight.links import Link

__all__ = ["mpi_link"]


def mpi_link(size: int, world_size: int) -> Link:
    """Return the link by MPI with messages of `size` bytes (collective: MPI_Init).

    Raises `RuntimeError` where the MPI library is missing or does not understand who started it.
    """
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    if world.Get_size() != world_size:
        raise RuntimeError(
            f"MPI sees {world.Get_size()} of {world_size} ranks: its library does not understand "
            "the launcher; srun --mpi=list shows them"
        )
    message = np.zeros(size // 4, dtype=np.float32)
    return Link(
        name="mpi",
        bytes=message.nbytes,
        send=lambda rank: world.Send(message, rank),
        receive=lambda rank: world.Recv(message, rank),
        all_reduce=lambda: world.Allreduce(MPI.IN_PLACE, message),
        barrier=world.Barrier,
    )
