"""The text of the training stages: replayed, in growing steps, by length; billed as it ran."""

import json
import re

import pytest
from tiny import TINY, adapt, hpc_llm, records, results

from hpc_llm.accounting import Architecture, Ledger, step_flops
from hpc_llm.accounting.method import stage_method
from hpc_llm.config import compose, typed
from hpc_llm.corpus import load_texts

GROWS = [
    "train.replay=0.3",
    "corpus.texts={more: [sample:ru]}",
    "stages.lora.text={target: 0.4, source: 0.3, more: 0.3}",
    "train.sequence_warmup={start: 64, steps: 6}",
    "train.batch_warmup={start: 512, steps: 4}",
]
SIZES = [(2, 64), (2, 64), (2, 128), (2, 128), (4, 128), (4, 128), *[(4, 256)] * 6]
"""Rows of 256 tokens in each step of LoRA, and the length they are cut to."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def grown(runs):
    adapt(runs, "run=grown", *GROWS)
    return runs / "grown"


def billed(folder, stage):
    found = [row for row in Ledger(folder / "ledger.jsonl").rows() if row.stage == stage]
    columns = ("tokens", "padded_tokens", "hardware_flops")
    return [sum(getattr(row, column) for row in found) for column in columns]


def test_the_ledger_counts_the_steps_that_ran(grown):
    tokens, padding, hardware = billed(grown, "train/lora")
    assert tokens + padding == sum(rows * 256 for rows, _ in SIZES)
    cfg = typed(compose([*TINY, *GROWS]))
    config = json.loads((grown / "transplant" / "config.json").read_text())
    architecture, method = Architecture.from_config(config), stage_method(cfg.stages["lora"])
    assert hardware == sum(
        step_flops(architecture, method, rows * 256 // length, length).total
        for rows, length in SIZES
    )


def test_replayed_text_is_encoded_with_the_new_vocabulary(grown):
    found = results(grown)
    source = found["tokenizer"]["replayed"]
    assert source["documents"] == found["corpus"]["source"]["train"]
    assert source["tokens"] > source["documents"]
    assert found["train/lora"]["epochs"] < 12 * 4 / found["train/lora"]["steps"]


def test_a_named_text_has_no_heldout_document_of_the_others(grown):
    found = results(grown)
    more, target = (found["corpus"][text] for text in ("more", "target"))
    assert more["excluded"] == target["tune"] + target["test"] > 0
    assert more["documents"] == more["train"] == target["train"]
    texts = {part: load_texts(grown / f"corpus/target/{part}.jsonl") for part in ("tune", "test")}
    assert not {*texts["tune"], *texts["test"]} & set(load_texts(grown / "corpus/more/train.jsonl"))
    encoded = found["tokenizer"]["texts"]
    assert encoded["more"]["tokens"] == encoded["target"]["tokens"]


def test_grouped_documents_are_charged_with_their_padding(runs):
    adapt(runs, "run=grouped", "train.batching=grouped", "train.replay=0.5")
    tokens, padding, hardware = billed(runs / "grouped", "train/lora")
    assert tokens > 0 < padding
    result = results(runs / "grouped")["train/lora"]
    assert result["packing_efficiency"] == pytest.approx(tokens / (tokens + padding))
    assert hardware > result["flops"]


def again(folder, *words):
    """Train the last stage once more, with what now lies in the folder."""
    (folder / "train" / "lora" / "weights.safetensors").unlink(missing_ok=True)
    return hpc_llm(
        "train", *TINY, f"runs_dir={folder.parent}", f"run={folder.name}", *words, check=False
    )


def test_shards_that_changed_are_refused_before_a_step(grown):
    shards = grown / "tokenizer" / "shards"
    content = (shards / "source.bin").read_bytes()
    events = (grown / "events.jsonl").read_bytes()
    (shards / "source.bin").write_bytes(content[:-100])
    done = again(grown, *GROWS)
    assert done.returncode == 2
    assert f"{shards / 'source.bin'}" in done.stderr
    assert f"{len(content):,}" in done.stderr
    (shards / "source.bin").write_bytes(content[:-100] + bytes(100))
    done = again(grown, *GROWS)
    assert done.returncode == 2
    assert f"{shards / 'source.bin'}" in done.stderr
    assert sum("hpc-llm:" in line for line in done.stderr.splitlines()) == 1
    assert (grown / "events.jsonl").read_bytes() == events
    (shards / "source.bin").write_bytes(content)
    assert again(grown, *GROWS).returncode == 0
    assert records(grown).count("train/lora") == 2


def test_no_text_to_replay_is_refused_before_anything_runs(runs):
    done = adapt(
        runs, "run=none", "train.replay=0.3", "corpus.source=[]", "model.path=x", check=False
    )
    assert done.returncode == 2
    assert re.search(r"train\.replay=0\.3: .*corpus\.source=", done.stderr)
    assert not (runs / "none").exists()
