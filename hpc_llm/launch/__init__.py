"""Where a run runs: several ranks on this machine, or a job of Slurm.

Inside a job srun starts the ranks, elsewhere mpirun or torchrun may.
"""

from hpc_llm.launch.job_script import job_script, ranks_per_node
from hpc_llm.launch.local import run_ranks
from hpc_llm.launch.slurm import ask_slurm, require_sbatch, submit

__all__ = ["ask_slurm", "job_script", "ranks_per_node", "require_sbatch", "run_ranks", "submit"]
