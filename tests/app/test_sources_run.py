"""A run on a mixture of sources: shares, evaluation of each, and what a changed share reruns."""

import json
import math

import numpy as np
import pytest
from tiny import TINY, adapt, results, summary

from hpc_llm.config import compose, typed
from hpc_llm.corpus import load_texts
from hpc_llm.pipeline.fingerprints import pipeline

TARGET, SOURCE = ("web", "kazakh"), ("code", "english")
SHARED = 5
"""Documents of web that kazakh has, too."""


def mixture(code="null", kazakh="kazakh.jsonl"):
    """Return the settings of a mixture with shares and sizes."""
    return [
        "corpus.target=[]",
        "corpus.source=[]",
        "corpus.sources.web={files: [sample:ru], language: ru, share: 0.5}",
        f"corpus.sources.kazakh={{files: [{kazakh}], language: kk}}",
        f"corpus.sources.code={{files: [sample:en], language: code, repeat: {code}}}",
        "corpus.sources.english={files: [sample:en], language: en, share: 0.2}",
        "corpus.source_languages=[en,code]",
        "corpus.temperature=2.0",
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    sample = load_articles()
    files = {
        "kazakh": [text.replace("о", "ө") for text in sample["ru"][60:90]] + sample["ru"][:SHARED],
        "code": [f"def f{i}(x):\n    return x + {i}\n" * 20 for i in range(30)],
    }
    words = mixture(2, folder / "kazakh.jsonl")
    words[4] = words[4].replace("sample:en", str(folder / "code.jsonl"))
    for name, texts in files.items():
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    adapt(folder, "run=mixed", *words, "corpus.test_documents=8", "corpus.tune_documents=4")
    return folder / "mixed"


def load_articles():
    from importlib.resources import files

    text = (files("hpc_llm.corpus") / "sample" / "articles.jsonl").read_text(encoding="utf-8")
    articles = [json.loads(line) for line in text.splitlines()]
    return {language: [article[language] for article in articles] for language in ("ru", "en")}


def test_each_stage_reads_the_sources_in_their_shares(run):
    found = results(run)
    tokens = {name: own["tokens"] for name, own in found["tokenizer"]["texts"].items()}
    roots = [math.sqrt(tokens["kazakh"]), math.sqrt(2 * tokens["code"])]
    kazakh, code = (0.3 * root / sum(roots) for root in roots)
    texts = found["train/lora"]["texts"]
    shares = {name: own["share"] for name, own in texts.items()}
    expected = {"web": 0.5, "kazakh": kazakh, "code": code, "english": 0.2}
    assert shares == pytest.approx(expected)
    assert sum(own["rows"] for own in texts.values()) == found["train/lora"]["steps"] * 4
    assert set(found["train/pretrain"]["texts"]) == set(SOURCE)


def test_each_source_and_all_of_a_language_are_evaluated(run):
    for point in ("base", "corrected"):
        measures = json.loads((run / f"evaluate/{point}.json").read_text())["measures"]
        losses = np.load(run / f"evaluate/{point}.npz")
        for language, names in (("target", TARGET), ("source", SOURCE)):
            nll, size = (sum(losses[f"{n}.{a}"].sum() for n in names) for a in ("nll", "bytes"))
            assert measures[f"bpb/{language}"]["value"] == pytest.approx(nll / math.log(2) / size)
            for name in names:
                known = point != "base" and language == "source"
                assert f"bpb/{name}" in measures
                assert (f"forgetting/{name}" in measures) == known
    assert summary(run)["target_bpb"]["corrected"] > 0
    assert "kazakh" in (run / "report/index.html").read_text()


def test_no_source_trains_on_what_another_one_holds_out(run):
    names = [*TARGET, *SOURCE]
    texts = {
        (name, part): set(load_texts(run / f"corpus/{name}/{part}.jsonl"))
        for name in names
        for part in ("train", "tune", "test")
    }
    heldout = set().union(*(texts[name, part] for name in names for part in ("tune", "test")))
    assert all(texts[name, "tune"] for name in names)
    assert not any(heldout & texts[name, "train"] for name in names)
    assert results(run)["corpus"]["kazakh"]["duplicates"] == SHARED


def test_a_changed_repeat_reruns_from_the_vocabulary_on(tmp_path):
    (tmp_path / "kazakh.jsonl").write_text('{"text": "a document of some length"}\n' * 9)

    def fingerprints(repeat):
        words = mixture(repeat, tmp_path / "kazakh.jsonl")
        return {
            stage.name: stage.fingerprint for stage in pipeline(typed(compose([*TINY, *words])))
        }

    one, other = fingerprints("null"), fingerprints(3)
    same = {name for name in one if one[name] == other[name]}
    assert same == {"corpus"}
