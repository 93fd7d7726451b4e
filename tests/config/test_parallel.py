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
