"""The stage evaluate/tokenizer by the command: other measures do not retrain the vocabulary."""

import json

import pytest
from tiny import hpc_llm, records


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("measured")


def tokenize(runs, *words, check=True):
    """Train a tokenizer of the sample; its base is a tiny Llama-like one."""
    return hpc_llm(
        "adapt", "--stages", "corpus,train/pretrain,tokenizer,evaluate/tokenizer",
        "experiment=example", "tokenizer.vocab_size=600", "stages.pretrain.steps=1",
        "tracking=off", f"runs_dir={runs}", "run=t", *words, check=check,
    )  # fmt: skip


def test_unigram_beside_bpe_on_the_same_text(runs):
    lexicon, lines = runs / "lexicon.tsv", runs / "ru.txt"
    lexicon.write_text("города\tгород/а\nречной\tреч/н/ой\n", encoding="utf-8")
    lines.write_text("Москва — столица.\nРека.\n", encoding="utf-8")
    tokenize(runs)
    words = ["tokenizer.compare=[bpe]", f"tokenizer.lexicon={lexicon}"]
    tokenize(runs, *words, f"tokenizer.parity={{en: {lines}, ru: {lines}}}")
    found = json.loads((runs / "t/evaluate/tokenizer.json").read_text(encoding="utf-8"))
    assert list(found["tokenizers"]) == ["old", "new", "bpe"]
    assert found["measures"] == found["tokenizers"]["new"]
    new, bpe = found["tokenizers"]["new"], found["tokenizers"]["bpe"]
    assert set(new) == set(bpe)
    assert new["token_ratio"]["value"] != bpe["token_ratio"]["value"]
    assert (
        new["parity/ru"]["value"] == new["round_trip"]["value"] == bpe["round_trip"]["value"] == 1
    )
    assert found["vocab_sizes"]["bpe"] == found["vocab_sizes"]["new"] == 600
    assert {"renyi_efficiency", "boundary_f1", "rare_tokens"} <= set(new)
    done = records(runs / "t")
    assert done.count("tokenizer") == 1  # a lexicon does not train the vocabulary again
    assert done.count("evaluate/tokenizer") == 2
    assert [path.name for path in (runs / "t").glob("tmp*")] == []


def test_a_wrong_line_of_the_lexicon_stops_before_any_stage(runs):
    lexicon = runs / "wrong.tsv"
    lexicon.write_text("города\tгород/ы\n", encoding="utf-8")
    done = tokenize(runs, "run=u", f"tokenizer.lexicon={lexicon}", check=False)
    assert done.returncode == 2
    assert "line 1" in done.stderr
    assert not (runs / "u/corpus").exists()
