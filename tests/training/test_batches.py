"""The division of a step among ranks and micro-steps."""

from dataclasses import replace

import pytest

from hpc_llm.errors import UserError
from hpc_llm.training.batches import plan_batches, stage_steps


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("micro", [None, 512, 1024])
def test_all_ranks_together_read_each_row_once(default_config, world_size, micro):
    train = replace(default_config.train, micro_batch_tokens=micro)
    plan = plan_batches(train, world_size, 512)
    assert plan.micro_rows * plan.accumulation * world_size == plan.rows == 8
    for step in (0, 7):
        parts = [p for rank in range(world_size) for p in plan.indices(step, rank)]
        assert sorted(i for p in parts for i in p) == list(range(8 * step, 8 * step + 8))


@pytest.mark.parametrize(
    ("change", "world_size", "message"),
    [
        ({"sequence_length": 1024}, 1, "the model has 512 positions"),
        ({}, 3, "cannot be divided among 3 ranks"),
        ({"micro_batch_tokens": 100}, 1, "holds no row of 512 tokens"),
    ],
)
def test_what_cannot_be_divided_is_told(default_config, change, world_size, message):
    with pytest.raises(UserError, match=message):
        plan_batches(replace(default_config.train, **change), world_size, 512)


def test_a_stage_ends_with_the_shorter_of_steps_and_epochs(default_config):
    plan = plan_batches(default_config.train, 1, None)
    stage = replace(default_config.train.lora, steps=100, max_epochs=2)
    assert stage_steps(stage, plan, rows_per_epoch=40) == 10
    assert stage_steps(stage, plan, rows_per_epoch=4000) == 100
