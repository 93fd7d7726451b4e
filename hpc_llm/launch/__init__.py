"""Several ranks on this machine; on clusters srun, mpirun or torchrun start them."""

from hpc_llm.launch.local import run_ranks

__all__ = ["run_ranks"]
