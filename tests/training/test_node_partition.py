"""Parameters gathered inside a node (hpZ): the same bits over stages and stops, less traffic."""

import json
from itertools import pairwise

import pytest
from start_ranks import METHODS, run, start_ranks

from hpc_llm.accounting import TrainingSetup
from hpc_llm.accounting.traffic import volumes

# every parameter is partitioned, and freed as soon as its layer has computed, as in a large model
WHOLE = {"persistence_elements": 0, "live_elements": 0, "reuse_elements": 0}
NODE = {**WHOLE, "node_partition": True}
EMBEDDINGS = 2 * 64 * 16
SIZE = EMBEDDINGS + 2 * (4 * 16 * 16 + 3 * 16 * 24 + 2 * 16) + 16


def tasks(folder, settings, methods, **more):
    """Return stages on one text, with several micro-batches a step."""
    found = []
    for name in methods:
        (folder / name).mkdir(parents=True, exist_ok=True)
        one = {"zero": 3, "precision": "bf16", "zero_settings": settings, "micro": 32, "steps": 3}
        method = METHODS.get(name, {"method": name})
        found.append({**one, **method, "folder": folder / name, **more})
    return found


@pytest.mark.parametrize(
    ("processes", "nodes", "layout"), [(2, 1, "whole"), (4, 2, "sharded")], ids=["one", "two"]
)
def test_stages_train_bit_for_bit_as_without_it_and_resume(tmp_path, processes, nodes, layout):
    kept = {"checkpoint": {"layout": layout}}
    methods = ["embeddings", "lora"]
    plain = tasks(tmp_path / "plain", WHOLE, methods)
    node = tasks(tmp_path / "node", NODE, methods)
    stopped = tasks(tmp_path / "cut", NODE, ["lora"], stop_at=3, **kept)
    *results, stop = run([*plain, *node, *stopped], processes, nodes)
    assert stop is None
    for one, other in zip(results[:2], results[2:], strict=True):
        assert one["losses"][0] != one["losses"][-1]
        assert other["losses"] == one["losses"]
        assert other["hash"] == one["hash"]
    (again,) = run(tasks(tmp_path / "cut", NODE, ["lora"], **kept), processes, nodes)
    assert again["hash"] == results[-1]["hash"]
    assert again["losses"] == results[-1]["losses"][2:]


def test_gathers_are_those_that_the_plan_counts(tmp_path):
    """Two nodes of two ranks, two micro-batches a step."""
    methods = {"embeddings": EMBEDDINGS, "full": SIZE}
    ways = {None: WHOLE, 2: NODE}
    results = iter(
        run([t for n, w in ways.items() for t in tasks(tmp_path / str(n), w, methods)], 4, 2)
    )
    for node_ranks in ways:
        setup = TrainingSetup(
            precision="bf16",
            sequence_length=32,
            zero_stage=3,
            data_parallel=4,
            node_ranks=node_ranks,
        )
        for trained in methods.values():
            everywhere, inside = volumes(SIZE, trained, setup, 2)
            everywhere -= setup.width * 2 * trained  # gradients are reduced, not gathered
            steps = pairwise(next(results)["gathers"])
            assert [[b - a for a, b in zip(*step, strict=True)] for step in steps] == [
                [everywhere, inside]
            ] * 2


def test_nodes_are_equal_and_hold_consecutive_ranks():
    nodes = {
        "two": [[0, 2], [1, 2], [0, 2], [1, 2]],
        "alternating": [[0, 2], [0, 2], [1, 2], [1, 2]],
        "unequal": [[0, 2], [1, 2], [0, 1], [0, 1]],
        "three and one": [[0, 3], [1, 3], [2, 3], [0, 1]],
        "of one rank": [[0, 1], [0, 1], [0, 1], [0, 1]],
    }
    found, _ = start_ranks("check_nodes.py", json.dumps(list(nodes.values())), 4)
    answers = dict(zip(nodes, found, strict=True))
    assert answers.pop("two") is None
    assert {key for key, *_ in answers.values()} == {"zero.node_partition"}
    assert "--distribution=block" in answers["alternating"][2]
    assert "2 of 4" in answers["alternating"][1]
