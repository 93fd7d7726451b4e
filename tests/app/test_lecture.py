"""table=lecture on a base model that knows some Russian: every row, with real text."""

import json
import time
from pathlib import Path

import pytest
from tiny import hpc_llm

SMALL = [
    "table.seeds=[1]", "corpus.max_documents=300", "tokenizer.vocab_size=1024",
    "train.sequence_length=128", "train.batch_tokens=1024", "train.steps.embeddings=8",
    "train.steps.adapter=10", "evaluation.test_bytes=6000", "evaluation.tune_bytes=4000",
    "correct.bootstrap_samples=50", "correct.grid=[0.5,1.0,1.5]", "tracking=off",
]  # fmt: skip


@pytest.fixture(scope="module")
def table(shared, tmp_path_factory):
    data = shared / "data"
    words = [
        "table", "table=lecture", f"model.path={data}/models/en-ru-base",
        f"corpus.target={data}/ru/ru_tinystories.jsonl.gz",
        f"corpus.source={data}/en/en_stories_books.jsonl.gz",
        f"runs_dir={tmp_path_factory.mktemp('runs')}", *SMALL,
    ]  # fmt: skip
    hpc_llm(*words)
    return words


def folder_of(words):
    runs = next(word.removeprefix("runs_dir=") for word in words if word.startswith("runs_dir="))
    return Path(runs) / "lecture"


@pytest.fixture(scope="module")
def rows(table):
    found = json.loads((folder_of(table) / "table.json").read_bytes())
    return {row["label"]: row for row in found["rows"]}


def bits(row):
    return row["measures"]["bpb/target"]["value"]


def test_every_row_is_measured_and_better_than_untrained_weights(rows):
    assert len(rows) == 17
    assert all(row["finished"] == row["runs"] == 1 for row in rows.values())
    worst = bits(rows["untrained weights"])
    assert all(bits(row) < worst for label, row in rows.items() if label != "untrained weights")


def test_phi_is_chosen_where_a_row_asks_for_it(table, rows):
    chosen = {row["phi"][0] for label, row in rows.items() if label.endswith("phi")}
    assert len([label for label in rows if label.endswith("phi")]) == 3
    found = [json.loads(file.read_bytes()) for file in folder_of(table).glob("*/correct/phi.json")]
    assert {one["phi"]["value"] for one in found} == chosen
    for one in found:
        losses = {entry["phi"]: entry["objective"] for entry in one["curve"]}
        assert losses[one["best"]] <= losses[1.0]


def test_rows_of_a_group_train_on_as_many_tokens(rows):
    groups = {}
    for row in rows.values():
        if row["tokens"] and row["label"] != "the base's vocabulary, LoRA low":
            groups.setdefault(row["group"], []).append(row["tokens"])
    for tokens in groups.values():
        assert max(tokens) < 1.05 * min(tokens)


def test_a_second_call_takes_seconds(table):
    begun = time.monotonic()
    hpc_llm(*table)
    assert time.monotonic() - begun < 120  # the first takes minutes
