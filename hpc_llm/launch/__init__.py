"""Launching a run: several ranks on this machine, a Slurm job, or a chain of Slurm jobs.

Inside a job srun starts the ranks; elsewhere mpirun or torchrun may.
"""

from hpc_llm.launch.job_script import expand_output, job_script, log_path, words_of
from hpc_llm.launch.jobs import SubmittedJob, newest_chain, read_jobs, record_jobs
from hpc_llm.launch.local import run_ranks
from hpc_llm.launch.options import ranks_per_node
from hpc_llm.launch.parts import Part, divide
from hpc_llm.launch.slurm import (
    ask_slurm,
    require_sbatch,
    submit,
    submit_chain,
    submit_chains,
)
from hpc_llm.launch.snapshot import copy_code

__all__ = [
    "Part",
    "SubmittedJob",
    "ask_slurm",
    "copy_code",
    "divide",
    "expand_output",
    "job_script",
    "log_path",
    "newest_chain",
    "ranks_per_node",
    "read_jobs",
    "record_jobs",
    "require_sbatch",
    "run_ranks",
    "submit",
    "submit_chain",
    "submit_chains",
    "words_of",
]
