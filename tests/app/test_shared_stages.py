"""Trials of a sweep share the stages whose settings are equal."""

import json

import pytest
from tiny import TINY, hpc_llm, records, summary

ALPHAS = (8, 16, 32, 64)
SHARED = [
    "corpus",
    "train/pretrain",
    "tokenizer",
    "evaluate/tokenizer",
    "evaluate/base",
    "transplant",
]
SHARED += ["evaluate/transplant", "train/embeddings", "evaluate/embeddings"]
OWN = ["train/lora", "evaluate/lora", "correct", "evaluate/corrected", "report"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    values = ",".join(map(str, ALPHAS))
    words = ["-m", f"stages.lora.alpha={values}", "cache=true", "run=grid", f"runs_dir={runs}"]
    hpc_llm("adapt", *TINY, *words)
    return runs


def linked(folder):
    """Return the stages of a run that were linked."""
    lines = (folder / "record.jsonl").read_text(encoding="utf-8").splitlines()
    found = map(json.loads, lines)
    return [record["stage"] for record in found if record["result"].get("linked")]


def test_equal_stages_run_once(sweep):
    folders = [sweep / "grid" / str(number) for number in range(len(ALPHAS))]
    assert [records(folder) for folder in folders] == [[*SHARED, *OWN]] * len(ALPHAS)
    assert [linked(folder) for folder in folders] == [[], *[SHARED] * (len(ALPHAS) - 1)]


def test_linked_stages_give_the_measures_of_a_run_by_itself(sweep):
    words = [f"stages.lora.alpha={ALPHAS[1]}", "cache=false", "run=alone", f"runs_dir={sweep}"]
    hpc_llm("adapt", *TINY, *words)
    alone, trial = summary(sweep / "alone"), summary(sweep / "grid/1")
    for key in ("target_bpb", "source_bpb", "phi", "tokens_per_word"):
        assert trial[key] == alone[key]
    model = [(folder / "model/model.safetensors").read_bytes() for folder in
             (sweep / "alone", sweep / "grid/1")]  # fmt: skip
    assert model[0] == model[1]
    assert linked(sweep / "alone") == []


def test_trials_share_the_order_of_rows(sweep):
    shards = [sweep / "grid" / str(number) / "tokenizer/shards" for number in range(len(ALPHAS))]
    indexes = [sorted(folder.glob(".target-*/pieces.bin")) for folder in shards]
    assert [len(found) for found in indexes] == [1] * len(ALPHAS)  # both stages use it
    linked = {(folder / "target.bin").stat().st_nlink > 1 for folder in shards}
    assert {found[0].stat().st_nlink > 1 for found in indexes} == linked
    entry = next(sweep.glob(".cache/tokenizer-*/rows"))
    assert [path.name for path in entry.iterdir()] == [indexes[0][0].parent.name]


def test_the_cache_is_listed_and_cleaned(sweep):
    said = hpc_llm("cache", str(sweep)).stdout
    for stage in SHARED:
        assert stage.replace("/", "-") in said
    assert "removed 0 entries" in hpc_llm("cache", str(sweep), "--keep", "0").stdout
    done = hpc_llm("cache", str(sweep), "--keep", "much", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("hpc-llm: --keep=much:")
