"""MERA's records, and the archive of answers where its answers are hidden."""

import json
import zipfile

import pytest
from errors import user_error
from task_formats import RECORDS
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hpc_llm.evaluation.tasks import read_questions
from hpc_llm.evaluation.tasks.evaluate import Place, evaluate_task
from hpc_llm.evaluation.tasks.scorer import Scorer
from hpc_llm.evaluation.tasks.submission import write_archive
from hpc_llm.settings import EvaluationSettings

TASKS = ("mera_ruworldtree", "mera_simplear")


def settings(folder, **more):
    given = {"window": 64, "stride": 32, "batch_tokens": 999, "test_bytes": 1, "tune_bytes": 1}
    return EvaluationSettings(**given, tasks=list(TASKS), task_folder=str(folder), **more)


@pytest.fixture
def files(tmp_path):
    """A folder with two records of both tasks, whose answers are hidden, and solved ones."""
    for name in TASKS:
        folder = tmp_path / "mera" / name.removeprefix("mera_")
        folder.mkdir(parents=True)
        hidden = [{**RECORDS[name], "outputs": "", "meta": {"id": i}} for i in (5, 6)]
        for file, found in (("test", hidden), ("train", [RECORDS[name]])):
            (folder / f"{file}.jsonl").write_text("\n".join(map(json.dumps, found)))
    return tmp_path


def test_the_instruction_is_filled_by_the_inputs(files):
    given = settings(files, submission=True)
    (choice, _), (total, _) = (read_questions(name, given) for name in TASKS)
    assert choice.prompt.splitlines()[:2] == ["Задание: Кто?", "A a"]
    assert total.prompt == "Реши: 2 + 2\nОтвет:"


def test_hidden_answers_are_refused_with_the_fix(files):
    for name in TASKS:
        path = files / "mera" / name.removeprefix("mera_") / "test.jsonl"
        with user_error(f"{path}:1", "evaluation.submission=true"):
            read_questions(name, settings(files))


def test_examples_of_hidden_answers_come_from_the_training_file(files):
    given = settings(files, submission=True, task_shots={"mera_simplear": 1})
    (question, _) = read_questions("mera_simplear", given)
    assert question.shots == ("Реши: 2 + 2\nОтвет: 4",)


def test_the_archive_holds_the_answer_to_every_record(files, llama, tmp_path):
    words = Tokenizer(models.WordLevel({"<unk>": 3, "A": 4, "B": 5, "C": 6, "D": 7}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<unk>")

    def encode(texts):
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    scorer = Scorer(llama, tokenizer, encode, 1, settings(files, submission=True))
    folder = tmp_path / "evaluate" / "base"
    place = Place(folder=folder, fingerprint="", stop_reason=lambda: None)
    for name in TASKS:
        assert evaluate_task(name, scorer, place, seed=1) is None
        assert json.loads((folder / f"{name}.json").read_text())["metrics"] == {}
    names = dict(zip(TASKS, ("ruWorldTree", "SimpleAr"), strict=True))
    path = write_archive(folder, names)
    first = path.read_bytes()
    assert write_archive(folder, names).read_bytes() == first
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["ruWorldTree.json", "SimpleAr.json"]
        found = {
            name: json.loads(archive.read(name))["data"]["test"] for name in archive.namelist()
        }
    for answers in found.values():
        assert [answer["meta"] for answer in answers] == [{"id": 5}, {"id": 6}]
    (line, _) = [json.loads(one) for one in (folder / f"{TASKS[0]}.jsonl").open()]
    best = line["scores"].index(max(line["scores"]))
    assert found["ruWorldTree.json"][0]["outputs"] == "ABCD"[best]
    assert all(isinstance(one["outputs"], str) for one in found["SimpleAr.json"])
