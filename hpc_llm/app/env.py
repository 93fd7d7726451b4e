"""`hpc-llm env`: versions and devices, for a bug report."""

import os
import platform
import shutil
import subprocess

from hpc_llm.app.arguments import Arguments

__all__ = ["run_env"]

TOOLS = ("sbatch", "srun", "mpirun", "nvidia-smi", "g++", "ninja")


def run_env(arguments: Arguments) -> int:
    """Print versions, cores, GPUs, and the Slurm and MPI commands on PATH."""
    del arguments
    from hpc_llm.pipeline.context import commit, versions
    from hpc_llm.rundir import conf_dir

    rows = {**versions(), "commit": commit() or "n/a", "system": platform.platform()}
    rows["cores"] = str(len(os.sched_getaffinity(0)))
    rows["gpus"] = _gpus()
    rows["conf"] = str(conf_dir())
    rows |= {tool: shutil.which(tool) or "n/a" for tool in TOOLS}
    for name, value in rows.items():
        print(f"{name:<14} {value}")
    return 0


def _gpus() -> str:
    if shutil.which("nvidia-smi") is None:
        return "none"
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return ", ".join(done.stdout.split("\n")).strip(", ") or "none"
