"""The command itself: help, configuration and plan without torch; the package as installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_llm.app.main import main
from hpc_llm.app.verbs import VERBS

ROOT = Path(__file__).resolve().parents[2]
LIGHT = """
import sys
from hpc_llm.app.main import main
code = main(sys.argv[1:])
heavy = {"torch", "deepspeed", "transformers", "peft", "wandb", "datasets"} & set(sys.modules)
assert not heavy, heavy
sys.exit(code)
"""


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_every_verb_has_help(capsys, verb):
    assert main([*([verb] if verb else []), "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"hpc-llm {verb or 'VERB'}")
    assert (VERBS[verb].summary if verb else "adapt") in said


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["adapt", "--help"],
        ["adapt", "--cfg", "job"],
        ["plan"],
        ["plan", "model=llama-3.1-405b", "plan.tokens=1000000000", "plan.format=json"],
        ["plan", "model=solar-10.7b", "cluster=a100_4x8", "launch=slurm", "plan.format=json"],
    ],
)
def test_help_configuration_and_plan_import_nothing_heavy(words):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_plan_tells_parameters_flops_and_hours(capsys):
    assert main(["plan", "model=solar-10.7b", "cluster=a100_4x8", "recipe=two_stage"]) == 0
    said = capsys.readouterr().out
    for word in ("10,737,815,552 parameters", "PF-days", "14.9", "USD", "embeddings", "lora"):
        assert word in said
    assert "bf16" in said
    assert "slurm" not in said


def test_launchers_may_add_a_local_rank(capsys):
    assert main(["adapt", "--local_rank=0", "--cfg", "job"]) == 0
    assert "sample:ru" in capsys.readouterr().out


def test_a_sweep_shows_its_configurations(capsys):
    assert main(["adapt", "-m", "train.lora.rank=8,16", "--cfg", "job"]) == 0
    said = capsys.readouterr().out
    assert "# trial 0: train.lora.rank=8\n" in said
    assert "# trial 1: train.lora.rank=16\n" in said


def test_the_wheel_holds_all_it_needs(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    site = tmp_path / "site"
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, site], check=True)
    assert (site / "hpc_llm/corpus/sample/articles.jsonl").exists()
    assert list((site / "hpc_llm/report/templates").iterdir())
    assert list((site / "hpc_llm/launch").glob("*.j2"))
    program = "import hpc_llm; from hpc_llm.app.main import main; print(hpc_llm.__file__); main()"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, "adapt", "--cfg", "job"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])},
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(str(site))
    assert "sample:ru" in done.stdout
