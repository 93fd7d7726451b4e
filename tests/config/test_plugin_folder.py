"""A plug-in folder with one file of each kind, as `docs/extending.md` shows them.

Methods have a test of their own: `tests/methods/test_plugin_method.py`.
"""

import json
import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from tiny import adapt, hpc_llm

from hpc_llm import config
from hpc_llm.ensembles import ensemble_names, load_ensemble
from hpc_llm.ensembles._algebra import Factors
from hpc_llm.rundir import conf_files

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
CAPITALS = ["Осло", "Берген"]
KINDS = {"hardware": "l40s", "cluster": "leonardo", "model": "qwen2.5-7b"}


def shown(option: str) -> str:
    """Return the YAML of the page whose first line selects this option."""
    (text,) = re.findall(rf"```yaml\n(# [^\n]*{re.escape(option)}.*?)```", PAGE.read_text(), re.S)
    return text


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """A plug-in folder with the page's device, cluster and model, each under the name `mine`."""
    for group, name in KINDS.items():
        path = tmp_path / "conf" / group / "mine.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(shown(f"{group}={name}").replace(f"name: {name}", "name: own-model"))
    monkeypatch.setenv("HPC_LLM_PLUGINS", str(tmp_path))
    return tmp_path


def test_a_device_a_cluster_and_a_model_of_its_own_are_planned(plugins):
    words = ["model=mine", "cluster=mine", "cluster.nodes=2", "plan.tokens=1_000_000"]
    done = hpc_llm("plan", *words, "plan.format=json")
    plan = json.loads(done.stdout)
    assert (plan["model"], plan["cluster"], plan["devices"]) == (
        "own-model", "Leonardo Booster, 2 x 4", 8,
    )  # fmt: skip
    words = ["model=mine", "hardware=mine", "plan.tokens=1_000_000", "plan.format=json"]
    assert json.loads(hpc_llm("plan", *words).stdout)["device"] == "L40S-48GB"


def test_they_are_listed_beside_those_of_the_project(plugins):
    said = hpc_llm("plan", "--help").stdout
    for group in KINDS:
        (line,) = [line for line in said.splitlines() if line.split()[:1] == [group]]
        assert ", mine" in line
        assert conf_files(group)["mine"].is_relative_to(plugins)
    done = hpc_llm("plan", "hardware=theirs", check=False)
    assert done.returncode == 2
    assert ", mine" in done.stderr


def test_an_ensemble_of_its_own_is_composed(plugins):
    folder = plugins / "ensembles"
    folder.mkdir()
    (code,) = re.findall(r"```python\n(# hpc_llm/ensembles/first.py.*?)```", PAGE.read_text(), re.S)
    (folder / "first.py").write_text(code)
    (plugins / "conf" / "compose").mkdir()
    (plugins / "conf" / "compose" / "first.yaml").write_text(shown("conf/compose/first.yaml"))
    assert "first" in ensemble_names()
    first = load_ensemble("first")
    settings = first.Settings(**yaml.safe_load(conf_files("compose")["first"].read_text()))
    change = Factors(torch.ones(1, 2), torch.ones(3, 1), 2.0)
    found = first.combine({"a": {"q": change}, "b": {"q": change._replace(scale=9.0)}}, settings)
    assert found.weights == {"a": 1.0, "b": 0.0}
    combined = found.layers["q"]
    torch.testing.assert_close(combined.b @ combined.a, torch.full((3, 2), 2.0))


def test_an_initialisation_of_its_own_is_accepted(plugins):
    folder = plugins / "initial"
    folder.mkdir()
    (code,) = re.findall(r"```python\n(# hpc_llm/vocab\w+/initial.*?)```", PAGE.read_text(), re.S)
    (folder / "last.py").write_text(code)
    names = ["transplant.input=last", "transplant.output=last"]
    assert config.typed(config.compose(names)).transplant.input == "last"


def test_a_task_of_its_own_is_evaluated_with_its_own_kind_and_metric(plugins):
    """On the page's task, and on one of the page's kind, scored by the page's metric."""
    page = PAGE.read_text()
    for room, name in (("kinds", "gap"), ("metrics", "probability")):
        (code,) = re.findall(rf"```python\n(# hpc_llm/\S+/{room}/{name}.py.*?)```", page, re.S)
        (plugins / room).mkdir()
        (plugins / room / f"{name}.py").write_text(code)
    tasks = plugins / "conf" / "task"
    tasks.mkdir()
    capitals = shown("conf/task/capitals.yaml")
    (tasks / "capitals.yaml").write_text(capitals)
    gap = capitals.replace("kind: choice", "kind: gap").replace(
        "{{ country }}:", "{{ country }} ___"
    )
    (tasks / "gaps.yaml").write_text(gap.replace("[acc_bytes", "[probability"))
    (record,) = re.findall(r"```json\n(.*?)```", page, re.S)
    (plugins / "capitals.jsonl").write_text(3 * record)
    words = ["evaluation.tasks=[capitals,gaps]", f"evaluation.task_folder={plugins}"]
    adapt(plugins / "runs", *words, "--stages", "corpus,train/pretrain,tokenizer,evaluate/base")
    folder = plugins / "runs" / "example" / "evaluate"
    measures = json.loads((folder / "base.json").read_text())["measures"]
    assert (measures["task/capitals"]["n"], measures["task/capitals"]["chance"]) == (3, 0.5)
    lines = [json.loads(line) for line in (folder / "base/gaps.jsonl").read_text().splitlines()]
    likelihoods = [math.exp(score) for score in lines[0]["scores"]]
    expected = likelihoods[0] / sum(likelihoods)
    assert measures["task/gaps"]["value"] == pytest.approx(expected)
    assert lines[0]["bytes"] == [len(f"Столица страны Норвегия {c}".encode()) for c in CAPITALS]
    done = hpc_llm("plan", "model=mine", "evaluation.tasks=capitls", check=False)
    assert (done.returncode, "capitals" in done.stderr) == (2, True)
    assert "Traceback" not in done.stderr
