"""The command itself: help, configuration and plan without torch; the package as installed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_llm.accounting import Ledger, LedgerRow
from hpc_llm.app.main import main
from hpc_llm.app.verbs import VERBS
from hpc_llm.errors import EXIT_USER

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


def test_plan_shows_parameters_flops_and_hours(capsys):
    assert main(["plan", "model=solar-10.7b", "cluster=a100_4x8", "recipe=two_stage"]) == 0
    said = capsys.readouterr().out
    for word in ("10,737,815,552 parameters", "PF-days", "14.9", "USD", "embeddings", "lora"):
        assert word in said
    assert "bf16" in said
    assert "slurm" not in said


def test_a_verb_without_settings_names_none_in_its_help(capsys):
    for verb in ("ledger", "diff", "env", "status", "cancel", "logs"):
        assert main([verb, "--help"]) == 0
        said = capsys.readouterr().out
        assert "--cfg" not in said
        assert "Groups" not in said
        assert "KEY=VALUE" not in said
    assert main(["plan", "--help"]) == 0
    assert "--cfg job" in capsys.readouterr().out


def test_a_plan_is_swept_and_a_refused_combination_stops_no_other(capsys):
    words = ["plan", "-m", "model=tinyllama-1.1b,llama-3.1-8b", "cluster=a100_4x8"]
    words.append("train.sequence_length=2048")  # all that TinyLlama takes
    assert main([*words, "plan.format=csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith("model,") for line in lines] == [True] + 6 * [False]
    assert [line.split(",")[0] for line in lines[1:5:3]] == ["tinyllama-1.1b", "llama-3.1-8b"]
    assert main([*words, "plan.format=json"]) == 0
    assert [plan["devices"] for plan in json.loads(capsys.readouterr().out)] == [32, 32]
    assert main(["plan", "-m", "model=solar-10.7b", "cluster=volta1", "train.precision=bf16,fp16"])
    told = capsys.readouterr()
    assert "# model=solar-10.7b cluster=volta1 train.precision=fp16\n" in told.out
    assert "train.precision=bf16: V100" in told.err


def test_a_swept_plan_shows_its_configurations(capsys):
    assert main(["plan", "-m", "seed=1,2", "--cfg", "job"]) == 0
    assert "# seed=2\nrun: example\n" in capsys.readouterr().out


def test_a_key_without_its_group_is_found(capsys):
    assert main(["plan", "model=solar-10.7b", "nodes=3"]) == EXIT_USER
    assert re.search(r"hpc-llm: nodes: .*\bcluster\.nodes\b", capsys.readouterr().err)


def test_the_ledger_reports_on_stderr_what_it_skips(capsys, tmp_path):
    assert main(["ledger", str(tmp_path / "a"), str(tmp_path / "b")]) == EXIT_USER
    capsys.readouterr()
    (tmp_path / "a").mkdir()
    row = LedgerRow(run="a", stage="lora", segment="s", step=1, seconds=3600.0)
    Ledger(tmp_path / "a/ledger.jsonl").append(row)
    assert main(["ledger", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    told = capsys.readouterr()
    assert re.search(r"/b: .*ledger\.jsonl.*\bskipped\b", told.err)
    assert "skipped" not in told.out


def test_launchers_may_add_a_local_rank(capsys):
    assert main(["adapt", "--local_rank=0", "--cfg", "job"]) == 0
    assert "sample:ru" in capsys.readouterr().out


def test_a_sweep_shows_its_configurations(capsys):
    assert main(["adapt", "-m", "stages.lora.rank=8,16", "--cfg", "job"]) == 0
    said = capsys.readouterr().out
    assert "# trial 0: stages.lora.rank=8\n" in said
    assert "# trial 1: stages.lora.rank=16\n" in said


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
