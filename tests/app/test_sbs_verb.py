"""`hpc-llm sbs` as a user runs it: pages, once and again, killed, and wrong."""

import json
import re
from html.parser import HTMLParser

import families
import pytest
import torch
from errors import user_error
from tiny import hpc_llm

from hpc_llm.evaluation.side_by_side import read_questions
from hpc_llm.report.side_by_side import WORDS

NAMES = ("zebra", "yak")
QUESTIONS = [{"id": f"q{number}", "question": f"ab </script> <b>{number}"} for number in range(12)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two small models that answer differently, and questions."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = families.tokenizer(families.ROWS, 0)
    for seed, name in enumerate(NAMES):
        model = families.tiny_model("llama")
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    lines = [json.dumps(one) for one in QUESTIONS]
    (folder / "q.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return folder


def words(models, runs, *more):
    given = ", ".join(f"{name}: {models / name}" for name in NAMES)
    return [
        "sbs",
        f"sbs.models={{{given}}}",
        f"sbs.questions={models / 'q.jsonl'}",
        "sbs.annotators=3",
        "sbs.max_new_tokens=8",
        f"runs_dir={runs}",
        "run=study",
        *more,
    ]


class Page(HTMLParser):
    """The card data of a page, and every address that it could load."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.addresses, self.data, self._open = [], [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.addresses += [found[key] for key in ("src", "href", "action") if key in found]
        self._open = tag == "script" and found.get("type") == "application/json"

    def handle_data(self, data):
        if self._open:
            self.data += data

    def handle_endtag(self, tag):
        self._open = False


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "ledger" not in path.name
    }


@pytest.fixture(scope="module")
def study(models, tmp_path_factory):
    """A finished study."""
    runs = tmp_path_factory.mktemp("runs")
    hpc_llm(*words(models, runs))
    return runs / "study"


def test_pages_are_blind_and_load_nothing(study):
    key = json.loads((study / "sbs/key.json").read_text(encoding="utf-8"))
    answers = [json.loads(line) for line in (study / "sbs/answers.jsonl").open(encoding="utf-8")]
    texts = {(one["question"], one["model"]): one["answer"].strip() for one in answers}
    orders = set()
    for annotator, cards in key["cards"].items():
        text = (study / f"sbs/annotators/{annotator}.html").read_text(encoding="utf-8")
        assert not re.search("|".join((*NAMES, "https?:", "@import", "model")), text)
        page = Page(text)
        assert page.addresses == []
        assert all(word in text for word in WORDS["en"].values())
        assert "<b>" not in text  # answers and questions are text
        data = json.loads(page.data)
        assert (data["study"], data["annotator"]) == (key["study"], annotator)
        shown = {one["id"]: one for one in data["cards"]}
        for card in cards:
            own = shown[card["id"]]
            assert set(own) == {"id", "question", "left", "right"}
            assert own["left"] == texts[card["question"], card["left"]]
            assert own["right"] == texts[card["question"], card["right"]]
        orders.add(tuple(card["question"] for card in cards))
    assert len(orders) == 3


def test_the_same_command_again_generates_nothing_and_writes_the_same(models, study):
    before = files(study)
    done = hpc_llm(*words(models, study.parent))
    assert "generate" not in done.stderr
    assert files(study) == before


def test_a_killed_generation_continues_to_the_same_study(models, study, tmp_path):
    hpc_llm(*words(models, tmp_path))
    answers = tmp_path / "study/sbs/answers.jsonl"
    lines = answers.read_bytes().splitlines(keepends=True)
    answers.write_bytes(b"".join(lines[:15]) + lines[15][:20])  # torn in the middle of a line
    (tmp_path / "study/sbs/key.json").unlink()
    done = hpc_llm(*words(models, tmp_path))
    assert "yak: 9 of 12" in done.stderr + done.stdout
    pages = {
        name: data for name, data in files(study / "sbs").items() if "answers" not in str(name)
    }
    again = files(tmp_path / "study/sbs")
    assert {name: data for name, data in again.items() if "answers" not in str(name)} == pages


def collected(study, folder, choose, annotators=("01", "02", "03")):
    """Write the answers of annotators who `choose(card)`; return the pattern of the files."""
    key = json.loads((study / "sbs/key.json").read_text(encoding="utf-8"))
    for annotator in annotators:
        answers = [
            {"card": card["id"], "choice": choose(card), "remark": "<i>", "seconds": 3}
            for card in key["cards"][annotator]
        ]
        content = {"study": key["study"], "annotator": annotator, "answers": answers}
        path = folder / f"answers-{annotator}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
    return f"sbs.collect={folder}/*.json"


def collect(study, *more, check=True):
    return hpc_llm("sbs", f"runs_dir={study.parent}", "run=study", *more, check=check)


def test_exported_answers_become_a_result(study, tmp_path):
    pattern = collected(study, tmp_path, lambda card: "left" if card["left"] == "yak" else "right")
    done = collect(study, pattern)
    assert "yak against zebra: win rate 1.00 (1.00 to 1.00)" in done.stdout
    result = json.loads((study / "sbs/result.json").read_text(encoding="utf-8"))
    assert result["pairs"][0]["wins"] == result["votes"] == 36
    assert result["self_agreement"]["n"] == 12
    page = (study / "sbs/result.html").read_text(encoding="utf-8")
    assert Page(page).addresses == []
    assert "yak against zebra" in page
    assert "<i>" not in page
    again = (study / "sbs/result.json").read_bytes()
    collect(study, pattern)
    assert (study / "sbs/result.json").read_bytes() == again


def test_wrong_answers_are_one_line(study, tmp_path):
    pattern = collected(study, tmp_path, lambda card: "tie", ("01", "03"))
    done = collect(study, pattern, "run=other", check=False)
    assert done.returncode == 2
    assert "other/sbs/key.json" in done.stderr
    done = collect(study, f"sbs.collect={tmp_path}/none*.json", check=False)
    assert done.returncode == 2
    assert "sbs.collect" in done.stderr
    (tmp_path / "copy.json").write_bytes((tmp_path / "answers-01.json").read_bytes())
    done = collect(study, pattern, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "copy.json" in done.stderr


def test_the_plan_needs_no_models(models):
    said = hpc_llm("sbs", "sbs.only_plan=true").stdout
    assert "78 questions x 15 annotators = 1170 votes" in said
    # standard error: sqrt(0.04 / 78 + 0.0025 / 15 + 0.2075 / 1170)
    assert "0.029" in said
    assert "0.582" in said
    smaller = [f"sbs.questions={models / 'q.jsonl'}", "sbs.per_question=5"]
    said = hpc_llm("sbs", "sbs.only_plan=true", *smaller).stdout
    assert "12 questions x 5 annotators = 60 votes" in said


@pytest.mark.parametrize(
    ("more", "mentions"),
    [
        (["sbs.annotators=4"], ("sbs", "run=NAME")),  # the folder has a study of three
        (["sbs.models.yak=nowhere"], ("sbs.models.yak=nowhere",)),
        (["sbs.repeats=5"], ("sbs.repeats=5", "4")),
        (["sbs.per_question=4"], ("sbs.per_question=4", "sbs.annotators=3")),
        (["sbs.language=de"], ("sbs.language=de", "ru")),
        (["sbs.prompt=hello"], ("sbs.prompt=hello", "{question}")),
        (["sbs.questions=missing.jsonl"], ("sbs.questions=missing.jsonl",)),
        (["run=null"], ("run=null",)),
        (["launch=slurm"], ("launch=slurm",)),
        (["sbs.chat=true", "run=chat"], ("sbs.models.zebra", "sbs.chat=false")),
        (["-m"], ("-m",)),
        (["sbs.question_sd=0.5"], ("sbs.question_sd=0.5", "0.25")),
    ],
)
def test_wrong_input_is_one_line(models, study, more, mentions):
    before = files(study)
    done = hpc_llm(*words(models, study.parent, *more), check=False)
    assert done.returncode == 2
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("hpc-llm:")]
    for word in mentions:
        assert word in line
    assert files(study) == before


def test_equal_models_are_refused(models, tmp_path):
    done = hpc_llm(*words(models, tmp_path, f"sbs.models.b={models / 'yak'}"), check=False)
    assert done.returncode == 2
    assert "sbs.models.b" in done.stderr
    assert "sbs.models.yak" in done.stderr


@pytest.mark.parametrize(
    ("line", "mention"),
    [
        ('{"id": "q1", "question": "again"}', "q1"),
        ('{"text": "x"}', "question"),
        ('{"question": " "}', "question"),
        ("[1]", "object"),
        ("{", "JSON"),
    ],
)
def test_wrong_questions_are_refused_by_line(models, tmp_path, line, mention):
    file = tmp_path / "q.jsonl"
    file.write_text('{"id": "q1", "question": "x"}\n' + line + "\n", encoding="utf-8")
    with user_error(f"{file}:2", mention):
        read_questions(str(file))
