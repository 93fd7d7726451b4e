"""Exported answers against the key, and the result of studies with planted annotators."""

import json
from dataclasses import replace

import pytest
from errors import user_error

from hpc_llm.evaluation.side_by_side import Design, Study, assign, evaluate, read_votes
from hpc_llm.rundir import write_json

QUESTIONS = [f"q{number}" for number in range(30)]


def study_of(models=("base", "ours"), annotators=6, repeats=4):
    """Return a study in which the answers of the second model are the longest for even numbers."""
    design = Design(annotators=annotators, repeats=repeats, seed=3)
    lengths = {
        question: {model: 10 + place * (number % 2 == 0) for place, model in enumerate(models)}
        for number, question in enumerate(QUESTIONS)
    }
    return Study(
        made_from="0",
        models={name: {"path": name, "content": name} for name in models},
        lengths=lengths,
        answers="0",
        cards=assign(QUESTIONS, models, design),
    )


def prefers(model):
    return lambda card: "left" if card.left == model else "right" if card.right == model else "tie"


def export(study, folder, choices):
    """Write the file of each annotator of `choices`, as a page exports it; return the paths."""
    paths = []
    for annotator, choice in choices.items():
        answers = [
            {"card": card.id, "choice": choice(card), "remark": "", "seconds": 2.5}
            for card in study.cards[annotator]
        ]
        path = folder / f"answers-{annotator}.json"
        path.write_text(
            json.dumps({"study": study.id, "annotator": annotator, "answers": answers}),
            encoding="utf-8",
        )
        paths.append(path)
    return paths


def everyone(study, choice):
    return dict.fromkeys(study.cards, choice)


def test_the_key_is_read_back_and_an_edited_one_is_refused(tmp_path):
    study, path = study_of(), tmp_path / "key.json"
    write_json(path, study.as_json())
    assert Study.load(path) == study
    content = study.as_json()
    card = content["cards"]["02"][5]
    card["left"], card["right"] = card["right"], card["left"]
    write_json(path, content)
    with user_error(str(path), "edited"):
        Study.load(path)
    # with an id that fits, the answers are of another study
    edited = replace(study, answers="1")
    with user_error(str(tmp_path / "answers-01.json"), study.id, edited.id):
        read_votes(edited, export(study, tmp_path, {"01": prefers("ours")}))
    write_json(path, {"study": "x"})
    with user_error(str(path), "cards"):
        Study.load(path)
    with user_error(str(tmp_path / "none.json"), "run=NAME"):
        Study.load(tmp_path / "none.json")


def changed(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "where", "mentions"),
    [
        (lambda c: c.update(study="ab"), "", ("ab",)),
        (lambda c: c.update(annotator="77"), "", ("77", "01")),
        (lambda c: c.update(annotator=[1]), "", ("01",)),
        (lambda c: c.update(answers={}), "", ("answers",)),
        (lambda c: c["answers"][2].update(card="nowhere"), ": answer 3", ("nowhere", "01")),
        (lambda c: c["answers"].append(c["answers"][0]), ": answer 35", ("twice",)),
        (lambda c: c["answers"][1].update(choice="up"), ": answer 2", ("both_bad",)),
        (lambda c: c["answers"].pop(4), "", ("1 of 34", "5", "sbs.partial=true")),
    ],
)
def test_wrong_answers_are_refused_by_file_and_place(tmp_path, change, where, mentions):
    study = study_of()
    (path,) = export(study, tmp_path, {"01": prefers("ours")})
    changed(path, change)
    with user_error(f"{path}{where}", *mentions):
        read_votes(study, [path])


def test_two_files_of_one_annotator_are_refused_and_a_part_is_accepted_on_request(tmp_path):
    study = study_of()
    (path,) = export(study, tmp_path, {"01": prefers("ours")})
    copy = tmp_path / "again.json"
    copy.write_bytes(path.read_bytes())
    with user_error(str(copy), "01", path):
        read_votes(study, [path, copy])
    changed(path, lambda c: c["answers"].pop(4))
    odd = {"seconds": float("nan"), "remark": "\ud800!"}
    changed(path, lambda c: c["answers"][0].update(odd))
    votes = read_votes(study, [path], partial=True)
    assert len(votes) == 33
    assert (votes[0].seconds, votes[0].remark) == (None, "?!")


def test_unanimous_annotators(tmp_path):
    study = study_of()
    votes = read_votes(study, export(study, tmp_path, everyone(study, prefers("ours"))))
    result = evaluate(study, votes)
    (pair,) = result["pairs"]
    assert (pair["model"], pair["against"]) == ("ours", "base")
    assert (pair["wins"], pair["losses"], pair["ties"], pair["both_bad"]) == (180, 0, 0, 0)
    assert pair["win_rate"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 180}
    assert pair["sign_test"] == {"better": 30, "worse": 0, "equal": 0, "p": 2 * 0.5**30}
    assert result["self_agreement"]["value"] == 1
    assert result["self_agreement"]["n"] == 24
    assert result["agreement"]["value"] is None  # one category only
    assert abs(result["position"]["value"] - 0.5) < 0.02
    assert result["length"]["n"] == 90  # where the lengths differ
    assert result["length"]["value"] == 1
    strengths = result["strengths"]["models"]
    assert strengths["ours"]["low"] > 0 > strengths["base"]["high"]


def test_annotators_who_always_choose_left_show_as_position_bias_only(tmp_path):
    study = study_of()
    votes = read_votes(study, export(study, tmp_path, everyone(study, lambda card: "left")))
    result = evaluate(study, votes)
    assert result["position"]["value"] == 1
    assert result["position"]["low"] > 0.97
    assert result["self_agreement"]["value"] == 0
    rate = result["pairs"][0]["win_rate"]
    assert rate["value"] == 0.5
    assert rate["low"] < 0.5 < rate["high"]


def test_ties_and_both_bad_count_half_and_a_dissenter_stands_out(tmp_path):
    study = study_of()
    choices = everyone(study, prefers("ours"))
    choices["03"], choices["04"] = prefers("base"), lambda card: "tie"
    choices["05"], choices["06"] = lambda card: "both_bad", prefers("ours")
    result = evaluate(study, read_votes(study, export(study, tmp_path, choices)))
    (pair,) = result["pairs"]
    assert (pair["wins"], pair["losses"], pair["ties"], pair["both_bad"]) == (90, 30, 30, 30)
    assert pair["win_rate"]["value"] == pytest.approx((90 + 30) / 180)
    own = result["by_annotator"]
    assert (own["03"]["agreement"], own["01"]["agreement"]) == (0, 0.4)
    assert own["04"]["ties"] == 30
    assert own["01"]["median_seconds"] == 2.5
    assert result["agreement"]["value"] < 0


def test_three_models_and_missing_annotators(tmp_path):
    study = study_of(models=("a", "b", "c"), repeats=0)
    choices = everyone(study, lambda card: prefers("c")(card))
    del choices["02"]
    votes = read_votes(study, export(study, tmp_path, choices))
    result = evaluate(study, votes)
    assert result["missing_annotators"] == ["02"]
    assert [(one["model"], one["against"]) for one in result["pairs"]] == [
        ("b", "a"),
        ("c", "a"),
        ("c", "b"),
    ]
    assert [one["win_rate"]["value"] for one in result["pairs"]] == [0.5, 1, 1]
    strengths = {name: one["value"] for name, one in result["strengths"]["models"].items()}
    assert strengths["a"] == pytest.approx(strengths["b"], abs=0.2)
    assert strengths["c"] > strengths["a"]
    assert sum(strengths.values()) == pytest.approx(0, abs=1e-9)
    assert result["self_agreement"]["value"] is None
    json.dumps(result, allow_nan=False)
