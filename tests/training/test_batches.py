"""The division of a step among ranks and micro-steps, and steps that grow."""

from dataclasses import replace

import pytest
from errors import user_error

from hpc_llm.settings.train import RampSettings
from hpc_llm.training.data.batches import Ramp, plan_batches, stage_steps

NONE = RampSettings(start=None, steps=10)


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("micro", [None, 512, 1024])
def test_all_ranks_together_read_each_row_once(default_config, world_size, micro):
    train = replace(default_config.train, micro_batch_tokens=micro)
    plan = plan_batches(train, world_size, 512)
    assert plan.micro_rows * plan.accumulation * world_size == plan.rows == 8
    for step in (0, 7):
        parts = [p for rank in range(world_size) for p in plan.indices(step, rank)]
        assert sorted(i for p in parts for i in p) == list(range(8 * step, 8 * step + 8))


def test_a_growing_quantity_follows_a_line_from_below():
    ramp = Ramp((1, 2, 4, 8), 7)
    assert [ramp.at(step) for step in range(9)] == [1, 2, 2, 4, 4, 4, 4, 8, 8]


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("micro", [None, 512, 1536])
def test_growing_batches_follow_one_after_the_other(default_config, world_size, micro):
    warmup = RampSettings(start=2048, steps=20)
    train = replace(
        default_config.train, batch_tokens=12_288, batch_warmup=warmup, micro_batch_tokens=micro
    )
    plan = plan_batches(train, world_size, 512)
    sizes, at = [], 0
    for step in range(30):
        parts = [plan.indices(step, rank) for rank in range(world_size)]
        assert len({tuple(map(len, part)) for part in parts}) == 1  # no rank waits for another
        assert max(map(len, parts[0])) <= plan.micro_rows
        assert len(parts[0]) <= plan.accumulation
        rows = sorted(i for part in parts for p in part for i in p)
        assert rows == list(range(at, at + len(rows)))
        assert plan.first_row(step) == at
        sizes.append(len(rows))
        at += len(rows)
        assert plan.steps_of(at) == step + 1
        assert plan.steps_of(at - 0.5) == step + 1
        assert plan.steps_of(at + 0.5) == step + 2
    assert sizes[0] == 4
    assert sizes == sorted(sizes)
    assert set(sizes) == {4, 8, 12, 16, 20, 24}
    assert sizes[19] == 20
    assert sizes[20:] == [24] * 10


def test_growing_rows_divide_the_full_length(default_config):
    train = replace(default_config.train, sequence_warmup=RampSettings(start=64, steps=70))
    plan = plan_batches(train, 1, 512)
    lengths = [plan.length(step) for step in range(80)]
    assert lengths == [64] * 10 + [128] * 20 + [256] * 40 + [512] * 10
    assert plan.indices(3, 0) == plan_batches(replace(train, sequence_warmup=NONE), 1, 512).indices(
        3, 0
    )


@pytest.mark.parametrize(
    ("change", "world_size", "key", "value", "fix"),
    [
        ({"sequence_length": 1024}, 1, "sequence_length", 1024, "train.sequence_length=512"),
        ({}, 3, "batch_tokens", 4096, 1536),
        ({"micro_batch_tokens": 100}, 1, "micro_batch_tokens", 100, "train.micro_batch_tokens=512"),
        ({"sequence_warmup": (100, 9)}, 1, "sequence_warmup.start", 100, 512),
        ({"batch_warmup": (700, 9)}, 1, "batch_warmup.start", 700, 512),
        ({"batch_warmup": (512, 9)}, 2, "batch_warmup.start", 512, 1024),
    ],
)
def test_what_cannot_be_divided_is_refused(default_config, change, world_size, key, value, fix):
    change = {
        key: RampSettings(start=value[0], steps=value[1]) if isinstance(value, tuple) else value
        for key, value in change.items()
    }
    with user_error(f"train.{key}", fix, value=value):
        plan_batches(replace(default_config.train, **change), world_size, 512)


@pytest.mark.parametrize("warmup", ["sequence_warmup", "batch_warmup"])
def test_grouped_batches_do_not_grow(default_config, warmup):
    with user_error("train.batching", warmup, value="grouped"):
        replace(
            default_config.train, batching="grouped", **{warmup: RampSettings(start=512, steps=9)}
        )


def test_a_stage_ends_with_the_shorter_of_steps_and_epochs(default_config):
    plan = plan_batches(default_config.train, 1, None)
    stage = replace(default_config.stages["lora"], steps=100, max_epochs=2)
    assert stage_steps(stage, plan, rows_per_epoch=40) == 10
    assert stage_steps(stage, plan, rows_per_epoch=4000) == 100
    assert stage_steps(stage, plan, rows_per_epoch=1) == 1
