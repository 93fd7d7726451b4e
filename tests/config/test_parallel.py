"""Settings of sequence and tensor parallelism: what is refused when they are composed."""

import pytest
from errors import user_error
from tiny import settings

SLURM = ("cluster=leonardo", "hardware=a100_sxm_64gb", "launch=slurm")


def test_without_them_every_rank_has_rows_of_its_own():
    parallel = settings().parallel
    assert (parallel.sequence, parallel.tensor) == (1, 1)


@pytest.mark.parametrize("key", ["sequence", "tensor"])
@pytest.mark.parametrize("size", [0, -1])
def test_sizes_are_counts(key, size):
    with user_error(f"parallel.{key}", value=size):
        settings(f"parallel.{key}={size}")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("sequence_parallel_size=2", "parallel.sequence"),
     ("tensor_parallel={autotp_size: 2}", "parallel.tensor")],
)  # fmt: skip
def test_the_keys_of_deepspeed_are_refused_with_ours(theirs, ours):
    with user_error(f"zero.extra.{theirs.partition('=')[0]}", ours):
        settings(f"+zero.extra.{theirs}")


SPLIT = ("parallel.sequence=2",)


@pytest.mark.parametrize(
    ("words", "key", "value", "mentions"),
    [
        (("train.batching=grouped",), "parallel.sequence", 2, ["train.batching=packed"]),
        (("train.compile=true",), "parallel.sequence", 2, ["train.compile=false"]),
        (("model.attention=eager",), "parallel.sequence", 2, ["eager", "sdpa"]),
        (("train.sequence_length=255", "train.batch_tokens=2550"), "train.sequence_length", 255,
         ["256"]),
        (("train.sequence_warmup.start=1",), "train.sequence_warmup.start", 1, ["2"]),
        (("stages.lora.sequence_length=513", "stages.lora.batch_tokens=1026"),
         "stages.lora.sequence_length", 513, ["514"]),
        ((*SLURM, "cluster.devices_per_node=3", "cluster.nodes=1"), "parallel.sequence", 2, ["3"]),
        (("parallel.tensor=2",), "parallel.tensor", 2, []),
    ],
)  # fmt: skip
def test_what_cannot_work_with_split_sequences_is_refused(words, key, value, mentions):
    with user_error(key, *mentions, value=value):
        settings(*SPLIT, *words)
