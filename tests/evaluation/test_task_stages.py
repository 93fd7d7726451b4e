"""What tasks change in the stages of a run, and what is refused before the first stage."""

import json
import subprocess
import sys

import pytest
from errors import user_error

from hpc_llm import config
from hpc_llm.pipeline import pipeline
from hpc_llm.pipeline.checks import check_start
from hpc_llm.rundir import RunFolder

PAIRS = "files: mine.jsonl\nkind: pair\nchoices: ['{{ a }}', '{{ b }}']\nmetric: [acc]\n"


def typed(*overrides):
    return config.typed(config.compose(["experiment=example", *overrides]))


def prints(*overrides):
    return {stage.name: stage.fingerprint for stage in pipeline(typed(*overrides))}


def changed(before, *overrides):
    after = prints(*overrides)
    return {name for name in before if before[name] != after[name]}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with a task `mine` of two pairs, which is the current folder, too."""
    (tmp_path / "conf/task").mkdir(parents=True)
    (tmp_path / "conf/task/mine.yaml").write_text(PAIRS)
    lines = [json.dumps({"a": f"кот {i}", "b": f"кит {i}"}) for i in range(2)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    monkeypatch.setenv("HPC_LLM_PLUGINS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tasks_change_only_the_points_at_which_they_are_evaluated(mine):
    none = prints()
    assert changed(none, "evaluation.task_limit=3", "evaluation.task_folder=x") == set()
    tasks = ["evaluation.tasks=mine"]
    both = {"evaluate/base", "evaluate/corrected", "report"}
    assert changed(none, *tasks) == both
    points = "evaluation.task_points=[transplant,lora]"
    assert changed(none, *tasks, points) == {"evaluate/transplant", "evaluate/lora", "report"}
    before = prints(*tasks)
    assert changed(before, *tasks, "evaluation.task_limit=1") == both
    (mine / "mine.jsonl").rename(mine / "copy.jsonl")
    assert changed(before, *tasks, "evaluation.task_files.mine=copy.jsonl") == both
    (mine / "copy.jsonl").rename(mine / "mine.jsonl")
    assert changed(before, *tasks) == set()
    (mine / "conf/task/mine.yaml").write_text(PAIRS + "group_by: [a]\n")
    assert changed(before, *tasks) == both


def test_results_of_tasks_are_outputs_of_their_points(mine):
    stages = {stage.name: stage for stage in pipeline(typed("evaluation.tasks=mine"))}
    files = {"evaluate/base/mine.json", "evaluate/base/mine.jsonl"}
    assert files < set(stages["evaluate/base"].outputs)
    assert "evaluate/base" in stages["evaluate/base"].owns
    assert "evaluate/lora" not in stages["evaluate/lora"].owns


def check(*overrides):
    cfg = typed("evaluation.tasks=mine", *overrides)
    stages = pipeline(cfg)
    check_start(cfg, RunFolder(cfg.folder), stages, stages, 1)


def test_bad_tasks_are_refused_before_the_first_stage(mine):
    check()
    with user_error("evaluation.task_points", "transplant", value="lora2"):
        check("evaluation.task_points=[base,lora2]")
    with user_error("evaluation.task_files.mine") as caught:
        check("evaluation.task_files.mine=no.jsonl")
    assert str(caught.value.value) == "no.jsonl"
    with (mine / "mine.jsonl").open("a") as handle:
        handle.write('\n{"a": "кот"}')
    with user_error("mine.jsonl:3", "a"):
        check()


def test_files_of_a_task_are_no_training_text(mine):
    (mine / "train.jsonl").write_bytes((mine / "mine.jsonl").read_bytes())
    with user_error("corpus.texts.chat", "mine") as caught:
        check("corpus.texts.chat=train.jsonl")
    assert str(caught.value.value) == "train.jsonl"


def test_misspelt_settings_are_suggested():
    with user_error("evaluation.task_point", "evaluation.task_points"):
        typed("evaluation.task_point=[base]")
    for word in ("task=parus", "+task=parus"):
        with user_error("task", "evaluation.tasks", value="parus"):
            typed(word)


def test_tasks_are_checked_without_torch():
    code = (
        "import sys; from hpc_llm.pipeline import checks; from hpc_llm import config;"
        "from hpc_llm.pipeline import pipeline;"
        "pipeline(config.typed(config.compose(['experiment=example'])));"
        "import hpc_llm.evaluation.tasks;"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
