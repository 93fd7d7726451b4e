"""The recipe on a real pretrained model and real stories, shorter than in the documentation."""

import re

import pytest
from tiny import hpc_llm, summary
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    data = shared / "data"
    hpc_llm(
        "adapt",
        f"model.path={data}/models/stories260K-hf",
        f"corpus.target={data}/ru/ru_tinystories.jsonl.gz",
        f"corpus.source={data}/en/en_stories_books.jsonl.gz",
        "tokenizer.vocab_size=2048",
        "stages.embeddings.steps=60",
        "stages.lora.steps=120",
        "evaluation.test_bytes=80000",
        "evaluation.tune_bytes=20000",
        "correct.grid=[0.5,0.8,1.0,1.25]",
        "correct.tolerance=0.1",
        f"runs_dir={runs}",
        "run=stories",
    )
    return runs / "stories"


def test_it_learns_russian(run):
    bpb = summary(run)["target_bpb"]
    assert bpb["base"] > 30
    assert bpb["embeddings"] < 1.4
    assert bpb["lora"] < 1.1
    assert bpb["corrected"] < 1.1
    words = summary(run)["tokens_per_word"]
    assert words["new"] < 2.3 < 10 < words["old"]


def test_it_reads_as_russian(run):
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    prompt = tokenizer("Жила-была", return_tensors="pt")
    ids = model.generate(**prompt, max_new_tokens=40, do_sample=False)
    text = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert text.startswith("Жила-была")
    letters = re.findall(r"[^\W\d_]", text)
    assert len(letters) > 60
    assert sum("а" <= letter.lower() <= "ё" for letter in letters) > 0.98 * len(letters)
    words = set(re.findall(r"[а-яё]+", text.lower()))
    assert len(words & {"и", "в", "на", "не", "она", "был", "была", "очень", "с", "что"}) >= 2
