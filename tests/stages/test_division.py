"""What one rank, which has nothing to divide, takes of ZeRO."""

import pytest

from hpc_llm import config
from hpc_llm.stages.training import needed_division


@pytest.mark.parametrize(
    ("words", "ranks", "stage"),
    [
        ([], 1, 0),
        (["zero=stage2"], 1, 0),
        (["zero=stage0"], 1, 0),
        ([], 2, 1),
        (["zero=stage3"], 1, 3),
        (["train.precision=bf16"], 1, 1),  # its fp32 weights are DeepSpeed's
        (["zero.offload_optimizer=true"], 1, 1),
        (["zero.extra.wall_clock_breakdown=true"], 1, 1),
        (["checkpoint.layout=sharded"], 1, 1),
    ],
)
def test_one_rank_in_fp32_divides_nothing_that_nobody_asked_for(words, ranks, stage):
    cfg = config.typed(config.compose(["experiment=example", *words]))
    found = needed_division(cfg, ranks)
    assert found.stage == stage
    assert found.extra == cfg.zero.extra
