"""Task files and their records: the shipped tasks, and what is wrong with others."""

import json

import pytest
from errors import user_error
from task_formats import GOLD, RECORDS, write_records
from task_settings import evaluation, own_task

from hpc_llm.evaluation.tasks import read_questions
from hpc_llm.evaluation.tasks.records import task_code
from hpc_llm.rundir import conf_dir, conf_files
from hpc_llm.settings.task import load_task

GOOD = {"text": "Небо", "options": ["синее", "круглое"], "label": 0, "subject": "цвет"}
TASK = """
files: mine.jsonl
kind: choice
prompt: "{{ text }}"
choices: options
gold: label
metric: [acc_bytes, acc]
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Return a function that writes a task, by default `TASK`, and its records."""
    write = own_task(tmp_path, monkeypatch)
    return lambda *records, task=TASK, **more: write(*records, task=task, **more)


@pytest.mark.parametrize("name", list(conf_files("task")))
def test_every_task_of_the_project_reads_its_format(name, tmp_path):
    task = load_task(name)
    assert task.description
    path = write_records(name, task, tmp_path)
    questions = read_questions(name, evaluation(name, task_folder=str(tmp_path)))
    assert [question.gold for question in questions] == GOLD.get(name, [0])
    skipped = 0 if task.shots_from else task.shots
    assert questions[0].id.startswith(f"{path.name}:{1 + skipped}")
    assert len(questions[0].shots) == task.shots
    assert questions[0].groups == tuple(RECORDS[name][key] for key in task.group_by)
    first = (conf_dir() / "task" / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith(f"# evaluation.tasks=[{name}]: ")


def test_prompts_of_the_project_read_as_text(tmp_path):
    write_records("parus", load_task("parus"), tmp_path)
    (question,) = read_questions("parus", evaluation("parus", task_folder=str(tmp_path)))
    assert question.requests == [("Я устал, потому что", " да."), ("Я устал, потому что", " нет.")]


def test_requests_of_a_choice_and_of_a_pair(mine):
    (question,) = read_questions("mine", mine(GOOD))
    assert question.requests == [("Небо", " синее"), ("Небо", " круглое")]
    neutral = TASK + "neutral_prompt: Ответ\nseparator: ': '\n"
    (question,) = read_questions("mine", mine(GOOD, task=neutral))
    assert question.requests == [
        *[("Небо", ": синее"), ("Небо", ": круглое")],
        *[("Ответ", ": синее"), ("Ответ", ": круглое")],
    ]
    pair = "files: mine.jsonl\nkind: pair\nchoices: ['{{ text }}', '{{ subject }}']\nmetric: [acc]"
    (question,) = read_questions("mine", mine(GOOD, task=pair))
    assert (question.requests, question.gold) == ([("", "Небо"), ("", "цвет")], 0)


@pytest.mark.parametrize("label", [1, " круглое ", True])
def test_gold_is_an_index_or_the_text_of_a_choice(mine, label):
    (question,) = read_questions("mine", mine(GOOD | {"label": label}))
    assert question.gold == 1


def test_a_field_of_any_name_is_in_the_record_and_a_single_value_is_a_list(mine):
    task = TASK.replace("{{ text }}", "{{ record['1-text'] }}").replace("[acc_bytes, acc]", "acc")
    (question,) = read_questions("mine", mine(GOOD | {"1-text": "x"}, task=task))
    assert question.prompt == "x"
    assert load_task("mine").metric == ["acc"]


def test_a_limit_takes_evenly_spaced_records_and_files_are_read_in_order(mine, tmp_path):
    given = mine(*[GOOD | {"text": str(i)} for i in range(10)], task_limit=4)
    assert [q.prompt for q in read_questions("mine", given)] == ["0", "2", "5", "7"]
    (tmp_path / "other.jsonl").write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD))
    own = mine(GOOD, task_files={"mine": ["*.jsonl"]})
    ids = [question.id for question in read_questions("mine", own)]
    assert ids == ["mine.jsonl:1", "other.jsonl:1", "other.jsonl:3"]


@pytest.mark.parametrize(
    ("record", "mentions"),
    [
        ({"text": "x", "label": 0}, ["options", "text, label"]),
        ({"options": ["a", "b"], "label": 0}, ["text", "options, label"]),
        ({"text": "x", "options": ["a", "b"], "label": 0}, ["subject", "text, options, label"]),
        (GOOD | {"label": 2}, [2, "синее, круглое"]),
        (GOOD | {"label": -1}, [-1]),
        (GOOD | {"label": None}, ["None"]),
        (GOOD | {"label": "0"}, ["'0'"]),
        (GOOD | {"label": 0.5}, [0.5]),
        (GOOD | {"options": "синее"}, ["choices"]),
        (GOOD | {"options": ["a", 2]}, ["choices"]),
        (GOOD | {"options": ["a"]}, [1]),
        (GOOD | {"options": []}, []),
        (GOOD | {"options": ["a", " "]}, [1]),
        (GOOD | {"text": None}, ["prompt"]),
        (GOOD | {"subject": None}, ["group_by", "subject"]),
        (GOOD | {"text": "\ud800"}, []),
        ([1, 2], []),
    ],
)
def test_a_bad_record_is_an_error_of_its_line(mine, record, mentions):
    given = mine(GOOD, record, task=TASK + "group_by: subject\n")
    with user_error("mine.jsonl:2", *mentions):
        read_questions("mine", given)


@pytest.mark.parametrize("line", ["{", "1" * 5000, "[" * 100_000])
def test_a_line_that_is_not_json_is_an_error_of_its_line(mine, line):
    with user_error("mine.jsonl:2"):
        read_questions("mine", mine(GOOD, line))


@pytest.mark.parametrize(
    ("old", "new", "key", "value"),
    [
        ("kind: choice", "kind: chioce", "task.mine.kind", "chioce"),
        ("[acc_bytes, acc]", "[acc, accc]", "task.mine.metric", "accc"),
        ("[acc_bytes, acc]", "[acc_pmi]", "task.mine.metric", "acc_pmi"),
        ("{{ text }}", "{{ text", "task.mine.prompt", "{{ text"),
        ("choices: options", "choices: options |", "task.mine.choices", "options |"),
        ("gold: label", "gold: null", "task.mine.gold", "null"),
        ("kind: choice", "kind: pair", "task.mine.prompt", "{{ text }}"),
    ],
)
def test_a_task_that_cannot_work_is_an_error_of_its_setting(mine, old, new, key, value):
    given = mine(GOOD, task=TASK.replace(old, new))
    with user_error(key, value=value):
        read_questions("mine", given)


@pytest.mark.parametrize(
    "prompt", ["{{ text.__class__.__mro__ }}", "{{ 1 / 0 }}", "{{ text + 1 }}"]
)
def test_templates_cannot_leave_the_sandbox_and_their_errors_are_one_line(mine, prompt):
    given = mine(GOOD, task=TASK.replace("{{ text }}", prompt))
    with user_error("mine.jsonl:1", "prompt"):
        read_questions("mine", given)


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ({"task": TASK.replace("kind:", "knid:")}, "task.mine.knid", None),
        ({"task": TASK.replace("kind: choice", "")}, "task.mine.kind", None),
        ({"task": TASK.replace("options", "[no, yes]")}, "task.mine.choices", [False, True]),
        ({"task": TASK.replace("[acc_bytes, acc]", "{acc: 1}")}, "task.mine.metric", {"acc": 1}),
        ({"task": TASK.replace("[acc_bytes, acc]", "[acc, 1]")}, "task.mine.metric", ["acc", 1]),
        ({"task": TASK.replace("[acc_bytes, acc]", "[]")}, "task.mine.metric", []),
        ({"task": TASK + "language: russian"}, "task.mine.language", "russian"),
        ({"task": TASK + "prompt_: [x"}, ..., None),
        ({"task": "- a"}, ..., None),
        ({"task_limit": 0}, "evaluation.task_limit", 0),
        ({"task_files": {"other": ["a.jsonl"]}}, "evaluation.task_files.other", None),
        ({"task_files": {"mine": []}}, "evaluation.task_files.mine", "[]"),
    ],
)
def test_settings_are_checked(mine, tmp_path, change, key, value):
    with user_error(str(tmp_path / "conf/task/mine.yaml") if key is ... else key, value=value):
        mine(GOOD, **change)


def test_unknown_and_repeated_tasks_are_refused():
    with user_error("evaluation.tasks", "parus", value="paruss"):
        evaluation("paruss")
    with user_error("evaluation.tasks", value="parus"):
        evaluation("parus", "russe", "parus")


@pytest.mark.parametrize(
    ("files", "value"),
    [
        (["no.jsonl"], "no.jsonl"),
        (["no*.jsonl"], "no*.jsonl"),
        (["mine.txt"], "mine.txt"),
        (["."], "mine.txt"),  # a folder is its files, and this one is no .jsonl
    ],
)
def test_files_that_cannot_be_read_are_refused(mine, tmp_path, files, value):
    (tmp_path / "mine.txt").write_text("text")
    given = mine(GOOD, task_files={"mine": files})
    with user_error("evaluation.task_files.mine") as caught:
        read_questions("mine", given)
    assert str(caught.value.value) == value
    (tmp_path / "mine.jsonl").unlink()
    with user_error("task.mine.files", "evaluation.task_folder", value=...) as caught:
        read_questions("mine", evaluation("mine"))
    assert str(caught.value.value) == "mine.jsonl"


def test_a_file_without_records_is_refused(mine):
    with user_error("task.mine.files", value="mine.jsonl"):
        read_questions("mine", mine())


def test_only_plug_in_code_counts(mine, tmp_path):
    given = mine(GOOD)
    assert task_code("mine", given.task("mine")) == {}
    (tmp_path / "metrics").mkdir()
    file = tmp_path / "metrics" / "own.py"
    file.write_text("def outcome(scored):\n    return 3\n")
    own_metric = TASK.replace("acc_bytes", "own")
    given = mine(GOOD, task=own_metric)
    before = task_code("mine", given.task("mine"))
    assert list(before) == ["metric.own"]
    with user_error("task.mine.metric", value="own"):
        read_questions("mine", given)
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "odd.py").write_text("def ask(record):\n    return record.nothing\n")
    with user_error("mine.jsonl:1", "odd"):
        read_questions("mine", mine(GOOD, task=TASK.replace("kind: choice", "kind: odd")))
    file.write_text(file.read_text() + "\n")
    assert task_code("mine", given.task("mine")) != before
