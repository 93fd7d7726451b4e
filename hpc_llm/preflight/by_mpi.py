"""Bandwidth over mpi4py if MPI launched the ranks; it uses the site's own network stack."""

import numpy as np

from hpc_llm.preflight.links import Link

__all__ = ["mpi_link"]


def mpi_link(size: int, world_size: int) -> Link:
    """Return the link over MPI with messages of `size` bytes (collective: MPI_Init).

    Raises `RuntimeError` if the MPI library is missing or does not support the launcher.
    """
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    if world.Get_size() != world_size:
        raise RuntimeError(
            f"MPI sees {world.Get_size()} of {world_size} ranks: its library does not support the "
            "launcher; see srun --mpi=list"
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
