"""Weights between stages: written by all ranks in shards, read by one, never whole on any."""

import pytest
from start_ranks import start_ranks

RANKS, SHARD = 2, 100_000


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two ranks report of a divided model (ZeRO-3) of 1.8 MB."""
    return start_ranks("shards_tiny.py", str(tmp_path_factory.mktemp("shards")), RANKS)[0][0]


def test_each_rank_writes_its_shards_and_a_file_of_before_goes(found):
    assert found["shards"] == len(found["by"][0]) + len(found["by"][1]) > 10
    assert abs(len(found["by"][0]) - len(found["by"][1])) <= 1
    index = "weights.safetensors.index.json"
    assert found["left"] == sorted([*found["by"][0], *found["by"][1], index])
    assert found["same"] is True
    assert found["back"] == [True] * RANKS


def test_writing_holds_one_shard_and_one_layer(found):
    assert max(found["writing"]) <= SHARD + found["layer"]


def test_loading_holds_the_part_of_a_rank_and_one_layer(found):
    part = found["model"] // RANKS + found["layer"]
    first, *others = found["loading"]
    assert first - found["file"] <= part  # the file is mapped, by rank 0 alone
    assert max(others) <= part
    assert max(found["applying"]) <= part + SHARD
