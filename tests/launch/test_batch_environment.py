"""What the batch scripts give to the processes that they start, with stand-ins for Slurm."""

import os
import subprocess
from pathlib import Path

import pytest

from hpc_llm.config import compose, typed
from hpc_llm.launch import job_script

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((REPOSITORY / "slurm").glob("*.sbatch"))


@pytest.fixture
def steps(tmp_path: Path):
    """Run a batch script in bash; return the environment of each of its job steps."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "srun": f"env -0 > {tmp_path}/step.$$",
        "hpc-llm": "",
        "scontrol": "",
    }.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NUM_NODES": "1"}
    own = {"PATH": f"{programs}:/usr/bin:/bin", "HPC_LLM_HOME": str(REPOSITORY), **slurm}

    def run(script: Path, **variables: str) -> list[dict[str, str]]:
        command = ["bash", str(script), "run=x"]
        subprocess.run(command, env=own | variables, cwd=tmp_path, check=True)
        texts = [path.read_text().strip("\0") for path in tmp_path.glob("step.*")]
        return [dict(line.split("=", 1) for line in text.split("\0")) for text in texts]

    return run


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_python_does_not_search_the_folder_of_the_job(steps, script: Path) -> None:
    found = steps(script, HPC_LLM_PREFLIGHT="1")
    assert found
    assert {step.get("PYTHONSAFEPATH") for step in found} == {"1"}


def test_nor_in_a_submitted_job(steps, tmp_path: Path) -> None:
    cfg = typed(compose(["experiment=example", "launch=slurm", "launch.snapshot=true"]))
    text = job_script(cfg, "adapt", tmp_path / "config.yaml")
    (tmp_path / "job").write_text(text.replace("export PATH=", "ignored="))
    for given, last in (("", ""), ("/opt/lib", "/opt/lib")):
        (found,) = steps(tmp_path / "job", SLURM_CPUS_PER_TASK="1", PYTHONPATH=given)
        assert found["PYTHONSAFEPATH"] == "1"
        own = f"{tmp_path}/code"
        assert found["PYTHONPATH"] == os.pathsep.join(filter(None, (own, last)))
        next(tmp_path.glob("step.*")).unlink()
