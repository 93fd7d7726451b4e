"""Kinds of tasks: what they ask of a record, and what a model makes of it."""

import json
import math

import pytest
import torch
from errors import user_error
from task_formats import write_records
from task_settings import evaluation, own_task
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpc_llm.evaluation.bits_per_byte import document_nll
from hpc_llm.evaluation.tasks import read_questions
from hpc_llm.evaluation.tasks.evaluate import Place, evaluate_task
from hpc_llm.evaluation.tasks.scorer import Scorer
from hpc_llm.settings.task import load_task
from hpc_llm.stages.texts import encoder, first_token

ROLLING = "files: mine.jsonl\nkind: rolling\nprompt: '{{ text }}'\nmetric: bpb\n"
GENERATE = """
files: mine.jsonl
kind: generate
prompt: "{{ text }}"
gold: answer
metric: [exact, f1_bag, bpb]
max_new_tokens: 6
until: ["."]
"""
CLASSIFY = """
files: mine.jsonl
kind: classify
prompt: "{{ text }}"
choices: ["да", "нет"]
labels: ["true", "false"]
gold: label
metric: mcc
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Return a function that writes a task and its records, and returns the settings."""
    write = own_task(tmp_path, monkeypatch)
    return lambda task, *records: write(*records, task=task)


def questions(name, folder):
    write_records(name, load_task(name), folder)
    return read_questions(name, evaluation(name, task_folder=str(folder)))


def test_nested_lists_are_questions_in_units(tmp_path):
    found = questions("muserc", tmp_path)
    assert [one.id.split(":")[1] for one in found] == ["1.0.0", "1.0.1", "1.1.0"]
    assert [one.unit.split(":")[1] for one in found] == ["1.0", "1.0", "1.1"]
    assert [one.prompt.splitlines()[1:3] for one in found[1:]] == [
        ["Вопрос: Кто спал?", "Ответ: Пёс"],
        ["Вопрос: Кто ел?", "Ответ: Пёс"],
    ]


def test_both_orders_are_variants_of_one_record(tmp_path):
    one, other = questions("parus_orders", tmp_path)
    assert one.unit == other.unit
    assert one.prompt.splitlines()[2:4] == ["1. Да.", "2. Нет."]
    assert other.prompt.splitlines()[2:4] == ["1. Нет.", "2. Да."]


def test_a_gap_is_filled_by_the_entities_of_the_text(tmp_path):
    (found,) = questions("rucos", tmp_path)
    assert found.texts == ("Осло", "Кнут")
    assert found.answers == ("Кнут",)
    assert "highlight" not in found.prompt
    assert [text for _, text in found.requests] == [
        "\nОсло живёт в столице.",
        "\nКнут живёт в столице.",
    ]


@pytest.mark.parametrize(
    ("task", "record", "key"),
    [
        (CLASSIFY, {"text": "a", "label": "maybe"}, "mine.jsonl:1"),
        (CLASSIFY, {"text": "a", "label": 2}, "mine.jsonl:1"),
        (CLASSIFY.replace('["true", "false"]', '["true"]'), {"text": "a"}, "task.mine.labels"),
        (CLASSIFY.replace("gold: label\n", ""), {"text": "a"}, "task.mine.gold"),
        (GENERATE, {"text": "a", "answer": []}, "mine.jsonl:1"),
        (GENERATE, {"text": "a", "answer": {"text": "b"}}, "mine.jsonl:1"),
        (GENERATE, {"text": " ", "answer": "b"}, "mine.jsonl:1"),
        (ROLLING + "gold: text\n", {"text": "a"}, "task.mine.gold"),
        (ROLLING, {"text": " "}, "mine.jsonl:1"),
        (ROLLING.replace("bpb", "exact"), {"text": "a"}, "task.mine.metric"),
        (ROLLING + "each: text\n", {"text": "a"}, "mine.jsonl:1"),
        (GENERATE.replace("generate", "cloze"), {"text": "a", "answer": "b"}, "mine.jsonl:1"),
    ],
)
def test_records_that_a_kind_cannot_ask_are_refused(mine, task, record, key):
    given = mine(task, record)
    with user_error(key):
        read_questions("mine", given)


@pytest.mark.parametrize(
    ("more", "key", "value"),
    [
        ("max_new_tokens: 0", "max_new_tokens", 0),
        ("max_new_tokens: true", "max_new_tokens", True),
        ("mean_of: acc", "mean_of", "acc"),
        ("variants: {a: b}", "variants", {"a": "b"}),
        ("variants: [{a: 1}]", "variants", [{"a": 1}]),
        ("labels: [yes]", "labels", [True]),
    ],
)
def test_settings_of_kinds_are_checked(mine, more, key, value):
    with user_error(f"task.mine.{key}", value=value):
        mine(GENERATE.replace("max_new_tokens: 6\n", "") + more)


@pytest.fixture(scope="module")
def stories(shared):
    path = shared / "data" / "models" / "stories260K-hf"
    return AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


def evaluated(given, stories, folder):
    model, tokenizer = stories
    scorer = Scorer(model, tokenizer, encoder(tokenizer), first_token(tokenizer), given)
    place = Place(folder=folder, fingerprint="", stop_reason=lambda: None)
    found = evaluate_task("mine", scorer, place, seed=1)
    lines = [json.loads(line) for line in (folder / "mine.jsonl").open()]
    return found, lines, json.loads((folder / "mine.json").read_text()), scorer


@torch.no_grad()
def test_generated_answers_equal_a_greedy_loop(stories, mine, tmp_path):
    texts = ["Once upon a time, there was a little girl named", "Lily and Tom went to the " * 30]
    given = mine(GENERATE, *[{"text": text, "answer": ["Lily", "Lucy"]} for text in texts])
    found, lines, result, scorer = evaluated(given, stories, tmp_path / "found")
    for text, line in zip(texts, lines, strict=True):
        ids = scorer.encode([text])[0]
        sequence = [1, *ids[-(64 - 6 - 1) :]]
        start = len(sequence)
        while len(sequence) < start + 6:
            sequence.append(int(stories[0](torch.tensor([sequence])).logits[0, -1].argmax()))
            if "." in (answer := stories[1].decode(sequence[start:]).strip()):
                break
        assert line["answer"] == answer.split(".")[0].strip()
        assert line["cut"] == (len(ids) > 57)
        (score,) = scorer.scores([(text, " Lily")])
        assert line["scores"] == pytest.approx([score.nats], abs=1e-5)
    assert result["cut_prompts"] == 1
    assert set(result["metrics"]) == {"exact", "f1_bag", "bpb"}
    assert result["metrics"]["bpb"]["unit"] == "bits per byte"
    right = [line["answer"] in ("Lily", "Lucy") for line in lines]
    assert found.value == sum(right) / 2


def test_whole_texts_have_the_bits_of_documents(stories, mine, tmp_path):
    texts = ["One day, Lily saw a big dog. " * 8, "The sun was hot."]  # one longer than the window
    given = mine(ROLLING, *[{"text": text} for text in texts])
    found, _, _, scorer = evaluated(given, stories, tmp_path / "found")
    nll = document_nll(stories[0], scorer.encode(texts), given, scorer.first_token)
    size = sum(len(text.encode()) for text in texts)
    assert found.value == pytest.approx(nll.sum() / math.log(2) / size, rel=1e-6)
    assert (found.better, found.chance, found.n) == ("lower", None, 2)
