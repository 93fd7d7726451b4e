"""A task that is interrupted gives the same files, and does not score a question twice."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hpc_llm.errors import Stopped
from hpc_llm.evaluation.tasks import evaluate
from hpc_llm.evaluation.tasks.evaluate import Place, evaluate_task, partial_file
from hpc_llm.evaluation.tasks.scorer import Scorer
from hpc_llm.settings import EvaluationSettings

WORDS = ["<unk>", "мама", "мыла", "раму", "кот", "пил", "чай"]


@pytest.fixture
def scorer(llama, tmp_path, monkeypatch):
    """Twelve pairs in chunks of four, and the number of sequences that the model has seen."""
    (tmp_path / "conf/task").mkdir(parents=True)
    (tmp_path / "conf/task/mine.yaml").write_text(
        "files: mine.jsonl\nkind: pair\nchoices: ['{{ a }}', '{{ b }}']\nmetric: [acc]\n"
    )
    pairs = [
        {"a": f"{WORDS[1 + i % 6]} {WORDS[1 + i % 5]}", "b": f"{WORDS[1 + i % 4]} кот {WORDS[3]}"}
        for i in range(12)
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    monkeypatch.setenv("HPC_LLM_PLUGINS", str(tmp_path))
    monkeypatch.setattr(evaluate, "CHUNK", 4)
    words = Tokenizer(models.WordLevel({w: i + 3 for i, w in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    given = {"window": 64, "stride": 32, "batch_tokens": 99, "test_bytes": 1, "tune_bytes": 1}
    settings = EvaluationSettings(**given, tasks=["mine"], task_folder=str(tmp_path))

    def encode(texts):
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    llama.rows = 0

    def count(module, args, output):
        llama.rows += len(output.logits)

    llama.register_forward_hook(count)
    return Scorer(llama, tokenizer, encode, 1, settings)


def place(folder, fingerprint="a", chunks=99):
    """Return a place with a stop request after some chunks."""
    left = iter([None] * chunks + ["stop"])
    return Place(folder=folder, fingerprint=fingerprint, stop_reason=lambda: next(left))


def results(folder):
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}


def test_an_interrupted_task_gives_the_same_bytes_and_scores_nothing_twice(scorer, tmp_path):
    whole = evaluate_task("mine", scorer, place(tmp_path / "whole"), 1)
    rows, scorer.model.rows = scorer.model.rows, 0
    folder = tmp_path / "cut"
    with pytest.raises(Stopped):
        evaluate_task("mine", scorer, place(folder, chunks=2), 1)
    assert results(folder) == {}
    first, partial = scorer.model.rows, partial_file(place(folder), "mine")
    assert 0 < first < rows
    with partial.open("ab") as handle:
        handle.write(b'{"begin": 8, "lines": [{"id"')  # a write that a kill has torn
    assert evaluate_task("mine", scorer, place(folder), 1) == whole
    assert scorer.model.rows == rows
    assert results(folder) == results(tmp_path / "whole")
    assert set(results(folder)) == {"mine.json", "mine.jsonl"}
    evaluate_task("mine", scorer, place(folder), 1)  # killed before the stage was recorded
    assert scorer.model.rows == rows


def test_scores_with_other_settings_are_not_used(scorer, tmp_path):
    with pytest.raises(Stopped):
        evaluate_task("mine", scorer, place(tmp_path / "x", "a", chunks=2), 1)
    before, scorer.model.rows = scorer.model.rows, 0
    evaluate_task("mine", scorer, place(tmp_path / "x", "b"), 1)
    assert scorer.model.rows > before


def test_files_of_a_task(scorer, tmp_path):
    found = evaluate_task("mine", scorer, place(tmp_path / "files"), 1)
    lines = [
        json.loads(line) for line in (tmp_path / "files/mine.jsonl").read_text().splitlines()[:12]
    ]
    assert [line["id"] for line in lines[:2]] == ["mine.jsonl:1", "mine.jsonl:2"]
    right = [
        0.5 if line["scores"][0] == line["scores"][1] else float(line["prediction"] == 0)
        for line in lines
    ]
    result = json.loads((tmp_path / "files/mine.json").read_text())
    assert result["metrics"]["acc"] == found.as_dict() | {"at_chance": found.at_chance}
    assert found.value == pytest.approx(sum(right) / 12)
    assert (found.n, found.chance, result["cut_prompts"]) == (12, 0.5, 0)
