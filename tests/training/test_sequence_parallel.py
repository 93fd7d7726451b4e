"""Ranks that split each sequence compute the gradient of one rank, and of every document alone."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from errors import user_error
from safetensors.torch import load_file
from start_ranks import run
from train_tiny import text
from transformers import LlamaConfig

from hpc_llm.surgery.loading import build_model
from hpc_llm.training.data.packing import RowKey
from hpc_llm.training.data.shards import PackedReader
from hpc_llm.training.parallel import check_sequence_parallel

UNCLIPPED = {"gradient_clipping": 1e9}
BETA1 = 0.9
SHAPE = {"num_attention_heads": 4, "num_key_value_heads": 2}


def task(folder, zero=0, **more):
    """Two micro-batches of four rows of 32 tokens a step on one rank."""
    extra = {"persistence_elements": 0} if zero == 3 else {}
    place = folder / str(len(list(folder.iterdir())))
    place.mkdir()
    common = {"method": "full", "micro": 128, "steps": 3, "shape": SHAPE, "train": UNCLIPPED}
    return {**common, "folder": str(place), "zero": zero, "zero_settings": extra, **more}


def first_gradient(one):
    """Return the gradient of the first step: its first moment is (1 - beta1) times it."""
    states = load_file(Path(one["folder"]) / "step-00000001" / "state.safetensors")
    names = (name for name in states if name.startswith("exp_avg/"))
    return {name.removeprefix("exp_avg/"): states[name] / (1 - BETA1) for name in names}


def documents_alone(shape):
    """Return the gradient of the first step by transformers alone, one document at a time."""
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, vocab_size=64,
        tie_word_embeddings=False, attn_implementation="eager", **shape,
    )  # fmt: skip
    model = build_model(config.to_dict(), 64, 0)
    model.set_attn_implementation("eager")
    written = text(5)
    reader = PackedReader(written, int(written.sizes.sum()), RowKey(32, 1, None))
    rows = reader.read(range(8), 32)
    loss, labels = torch.zeros(()), 0
    for document in (torch.from_numpy(np.array(d)) for row in rows.pieces for d in row):
        logits = model(document[None]).logits[0, :-1]
        loss = loss + F.cross_entropy(logits, document[1:], reduction="sum")
        labels += len(document) - 1
    (loss / labels).backward()
    return float(loss.detach() / labels), {n: p.grad for n, p in model.named_parameters()}


def same_gradients(found, expected):
    """Compare by the largest element of each matrix; adapters start at 0 and stay exactly so."""
    for name, gradient in found.items():
        close = (gradient - expected[name]).abs().max()
        assert float(close) <= 1e-5 * max(float(expected[name].abs().max()), 1e-3), name


def test_two_ranks_have_the_gradient_of_documents_alone_at_every_zero_stage(tmp_path):
    tasks = [task(tmp_path, zero, method=method, parallel=[2, 1], stop_at=2)
             for method, zero in product(("full", "embeddings"), range(4))]  # fmt: skip
    assert run(tasks, 2) == [None] * len(tasks)
    _, expected = documents_alone(SHAPE)
    for one in tasks:
        found = first_gradient(one)
        assert len(found) == (len(expected) if one["method"] == "full" else 2)
        same_gradients(found, expected)


def test_adapters_train_as_on_one_rank_and_every_token_is_counted_once(tmp_path):
    alone = [task(tmp_path, method="lora"), task(tmp_path, method="lora", stop_at=2)]
    split = [task(tmp_path, zero, method="lora", parallel=[2, 1]) for zero in (1, 3)]
    first = [task(tmp_path, zero, method="lora", parallel=[2, 1], stop_at=2) for zero in (1, 3)]
    expected, _ = run(alone)
    for one, found in zip(first, run([*split, *first], 2)[:2], strict=True):
        assert found["losses"] == pytest.approx(expected["losses"], abs=1e-5)
        assert found["tokens"] == expected["tokens"]
        assert [r[:3] for r in found["records"]] == [r[:3] for r in expected["records"]]
        same_gradients(first_gradient(one), first_gradient(alone[1]))


def test_four_ranks_split_rows_and_batch_and_share_key_value_heads(tmp_path):
    """Groups of two beside data parallelism; groups of four with two key-value heads."""
    sizes = [(2, 1), (2, 3), (4, 2)]
    tasks = [task(tmp_path, zero, parallel=[size, 1], micro=64) for size, zero in sizes]
    cut = [{**task(tmp_path, zero, parallel=[size, 1], micro=64), "stop_at": 2}
           for size, zero in sizes]  # fmt: skip
    loss, expected = documents_alone(SHAPE)
    found = run([*tasks, *cut], 4)
    for one, whole in zip(cut, found, strict=False):
        assert whole["losses"][0] == pytest.approx(loss, abs=1e-5)
        same_gradients(first_gradient(one), expected)


def test_a_checkpoint_continues_at_another_size(tmp_path):
    """Two ranks with split rows, one rank, and two ranks again: the losses of one rank."""
    layouts = [{"checkpoint": {"layout": layout}} for layout in ("whole", "sharded")]
    whole = task(tmp_path, 1, steps=6)
    moved = [task(tmp_path, 2, steps=6, parallel=[2, 1], **layout) for layout in layouts]
    assert run([{**one, "stop_at": 3} for one in moved], 2) == [None] * 2
    alone = [{**one, "parallel": [1, 1]} for one in moved]
    expected, *none = run([whole, *({**one, "stop_at": 3} for one in alone)])
    assert none == [None] * 2
    for one, found in zip(moved, run(moved, 2), strict=True):
        assert found["losses"] == pytest.approx(
            expected["losses"][-len(found["losses"]) :], abs=1e-5
        )
        states = json.loads((Path(one["folder"]) / "step-00000004" / "state.json").read_text())
        assert states["progress"]["step"] == 4


def test_a_stopped_run_continues_with_the_same_bits(tmp_path):
    whole, cut = (task(tmp_path, 2, steps=4, parallel=[2, 1]) for _ in range(2))
    expected, none = run([whole, {**cut, "stop_at": 3}], 2)
    assert none is None
    assert run([cut], 2)[0]["hash"] == expected["hash"]


LLAMA = {"model_type": "llama", "num_attention_heads": 12, "num_key_value_heads": 4}


@pytest.mark.parametrize("size", [1, 2, 4, 12])
def test_sizes_that_divide_the_heads_are_allowed(size):
    check_sequence_parallel(LLAMA, size)


@pytest.mark.parametrize(
    ("config", "size", "mentions"),
    [
        (LLAMA, 5, ["12", "4"]),
        (LLAMA, 6, ["1 or 2 or 4 or 12"]),
        ({**LLAMA, "model_type": "gpt2"}, 2, ["gpt2", "llama"]),
        ({**LLAMA, "model_type": "mistral", "sliding_window": 4096}, 2, ["4096"]),
    ],
)
def test_models_whose_rows_cannot_be_split_are_refused(config, size, mentions):
    with user_error("parallel.sequence", *mentions, value=size):
        check_sequence_parallel(config, size)
