"""A recipe that trains new rows first, its stages ended by budgets of tokens and PF-days."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import TINY, hpc_llm, stages, summary

TOKENS = 5000
PF_DAYS = 2.8e-11
NAME = "model.embed_tokens.weight"  # the example ties its head to it


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    settings = [word for word in TINY if "stages.embeddings" not in word]
    hpc_llm(
        "adapt", *settings, *stages("pretrain", "new_rows", "lora"), f"runs_dir={runs}",
        "schedule=wsd", "train.weight_decay=0.1",
        f"stages.new_rows.tokens={TOKENS}", f"stages.lora.pf_days={PF_DAYS}",
        "stages.lora.train_embeddings=false",
    )  # fmt: skip
    return runs / "example"


def test_new_rows_move_and_all_others_keep_their_bits(folder):
    new = np.load(folder / "transplant/new_rows.npy")
    before = load_file(folder / "transplant/model.safetensors")[NAME]
    after = load_file(folder / "train/new_rows/weights.safetensors")[NAME]
    moved = np.flatnonzero((before != after).any(1))
    assert moved.tolist() == new.tolist()
    assert 100 < len(new) < len(before)
    merged = load_file(folder / "model/model.safetensors")[NAME]
    assert np.array_equal(merged, after)
    result = json.loads((folder / "train/new_rows/done.json").read_text())
    assert result["trainable_parameters"] == len(new) * before.shape[1]


def test_a_stage_and_its_annealing_end_with_the_budget(folder):
    limits = {"new_rows": ("tokens", TOKENS), "lora": ("flops", PF_DAYS * 8.64e19)}
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    for stage, (key, limit) in limits.items():
        steps = [x for x in lines if x["event"] == "train" and x["stage"] == stage]
        last = steps[-1]
        assert limit <= last[key] < limit * (1 + 1.5 / last["step"])
        rates = [x["metrics"]["train/learning_rate"] for x in steps]
        assert rates[-1] < 0.3 * max(rates)
    points = summary(folder)["target_bpb"]
    assert points["new_rows"] < points["transplant"]
