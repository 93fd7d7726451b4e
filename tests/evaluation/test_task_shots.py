"""Few-shot examples, and records of CSV files."""

import json

import pytest
from errors import user_error
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hpc_llm.evaluation.tasks import read_questions
from hpc_llm.evaluation.tasks.evaluate import Place, evaluate_task
from hpc_llm.evaluation.tasks.fitting import fitted
from hpc_llm.evaluation.tasks.readers import records
from hpc_llm.evaluation.tasks.scorer import Scorer
from hpc_llm.settings import EvaluationSettings

TASK = """
files: test.jsonl
kind: choice
preamble: "Вопросы ({{ subject }}).\\n\\n"
prompt: "{{ text }}?"
choices: [да, нет]
gold: label
metric: acc
group_by: subject
shots: 2
shots_from: dev.jsonl
shots_by: subject
"""


def record(text, subject="a", label=0):
    return {"text": text, "subject": subject, "label": label}


def settings(**more):
    given = {"window": 64, "stride": 32, "batch_tokens": 999, "test_bytes": 1, "tune_bytes": 1}
    return EvaluationSettings(**given, tasks=["mine"], **more)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Return a function that writes the task `mine`, with questions and examples."""
    (tmp_path / "conf" / "task").mkdir(parents=True)
    monkeypatch.setenv("HPC_LLM_PLUGINS", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def write(test, dev=(), task=TASK, **more):
        (tmp_path / "conf" / "task" / "mine.yaml").write_text(task)
        for name, found in (("test", test), ("dev", dev)):
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, found)) + "\n")
        return settings(**more)

    return write


DEV = [record(f"{s}{i}", s, i % 2) for i in range(3) for s in "ab"]


def test_examples_are_the_first_of_the_same_subject(mine):
    one, other = read_questions("mine", mine([record("q"), record("r", "b")], DEV))
    assert one.context == "Вопросы (a).\n\na0? да\n\na1? нет\n\nq?"
    assert other.shots == ("b0? да", "b1? нет")
    assert one.requests[1] == (one.context, " нет")
    none = mine([record("q")], task_shots={"mine": 0})
    assert read_questions("mine", none)[0].context == "Вопросы (a).\n\nq?"
    more = mine([record("q")], DEV, task_shots={"mine": 3})
    assert len(read_questions("mine", more)[0].shots) == 3


def test_without_a_file_of_its_own_the_first_records_are_examples(mine):
    task = TASK.replace("shots_from: dev.jsonl\n", "").replace("shots: 2", "shots: 1")
    given = mine([record("p"), record("q"), record("r", "b"), record("s", "b")], task=task)
    found = read_questions("mine", given)
    assert [(one.id, one.shots) for one in found] == [
        ("test.jsonl:2", ("p? да",)),
        ("test.jsonl:4", ("r? да",)),
    ]


def test_too_few_examples_are_refused(mine):
    with user_error("task.mine.shots", "dev.jsonl", "3 records", "b", value=4):
        read_questions("mine", mine([record("q", "b")], DEV, task_shots={"mine": 4}))
    with user_error("task.mine.shots_from"):
        read_questions("mine", mine([record("q")], DEV, TASK.replace("dev.jsonl", "no.jsonl")))
    pair = "files: test.jsonl\nkind: pair\nchoices: ['{{ text }}', b]\nmetric: acc\nshots: 1\n"
    with user_error("task.mine.shots", "pair"):
        read_questions("mine", mine([record("q"), record("r")], task=pair))


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"task_shots": {"mine": -1}}, "evaluation.task_shots.mine"),
        ({"task_shots": {"other": 1}}, "evaluation.task_shots.other"),
        ({"task": TASK.replace("shots: 2", "shots: -1")}, "task.mine.shots"),
        ({"task": TASK.replace("shots: 2", "shots: two")}, "task.mine.shots"),
    ],
)
def test_numbers_of_examples_are_checked(mine, more, key):
    with user_error(key):
        mine([record("q")], DEV, **more)


@pytest.fixture
def scorer(llama, mine):
    """A scorer whose tokens are words, with a window of 64."""
    words = Tokenizer(models.WordLevel({"<unk>": 3, "word": 4, "да": 5, "нет": 6}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)

    def encode(texts):
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    return lambda given: Scorer(llama, tokenizer, encode, 1, given)


def test_examples_are_dropped_before_the_prompt_is_cut(scorer, mine):
    words = " ".join(["word"] * 20)
    long = record(" ".join(["word"] * 70))
    given = mine([record("q"), record(words), long], [record(words, "a"), record("b " + words)])
    found = fitted(read_questions("mine", given), scorer(given), 0)
    # 2 of the preamble and 1 of a choice, 21 and 22 of the examples, 1, 20 and 70 of the prompts
    assert [len(question.shots) for question in found] == [2, 1, 0]
    assert found[1].shots[0].startswith("b word")
    assert found[1].context.startswith("Вопросы (a).")


@pytest.mark.parametrize("header", [False, True])
def test_csv_files_of_mmlu_have_subjects_and_letters(tmp_path, header):
    path = tmp_path / "high_school_test.csv"
    rows = ['"Что, ""это""?\nИли то?",один,два,три,четыре,C', "2+2?,1,2,3,4,D"]
    path.write_text("\n".join((["question,A,B,C,D,answer"] if header else []) + rows))
    one, two = (record for _, record in records(path))
    assert one["question"] == 'Что, "это"?\nИли то?'
    assert one["choices"] == ["один", "два", "три", "четыре"]
    assert (one["label"], two["label"], one["subject"]) == (2, 3, "high_school")


@pytest.mark.parametrize("row", ["a,b,c", "q,1,2,3,4,E", "q,1,2,3,4,", '"q'])
def test_bad_rows_are_errors_of_their_line(tmp_path, row):
    path = tmp_path / "x.csv"
    path.write_text("q,1,2,3,4,A\n" + row + "\n")
    with user_error(f"{path}:2"):
        list(records(path))


def test_csv_files_with_a_header_have_its_fields(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("Question,reply\nq,r\n")
    assert [record for _, record in records(path)] == [{"question": "q", "reply": "r"}]


def test_lines_count_the_examples_that_a_question_has(scorer, mine, tmp_path):
    long = record(" ".join(["word"] * 70))
    given = mine([record("q"), record("q", "b"), long], DEV)
    place = Place(folder=tmp_path / "found", fingerprint="", stop_reason=lambda: None)
    evaluate_task("mine", scorer(given), place, seed=1)
    result = json.loads((tmp_path / "found/mine.json").read_text())
    assert (result["cut_shots"], result["cut_prompts"]) == (1, 1)
    lines = [json.loads(line) for line in (tmp_path / "found/mine.jsonl").open()]
    assert [line.get("shots", 0) for line in lines] == [2, 2, 0]
    # over questions, not over subjects
    right = [line["prediction"] == line["gold"] for line in lines]
    assert result["micro"]["value"] == pytest.approx(sum(right) / 3)
