"""Host memory of a node: by hand for published sizes, and as plans and warnings show it."""

from dataclasses import replace

import pytest
from tiny import settings

from hpc_llm.accounting import Architecture
from hpc_llm.accounting.host_memory import SHARD_BYTES, HostSetup, host_memory
from hpc_llm.planning.plan import make_plan

LLAMA_70B = Architecture(
    hidden_size=8192, num_layers=80, num_heads=64, num_kv_heads=8, ffn_size=28672,
    vocab_size=32_768,
)  # fmt: skip
SETUP = HostSetup(
    width=2, nodes=8, ranks_per_node=4, zero_stage=3, sharded=True, offload_optimizer=False,
    offload_parameters=False,
)  # fmt: skip


def test_a_70b_model_by_hand() -> None:
    total = 2 * 32_768 * 8192 + 80 * (2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28672 + 2 * 8192)
    total += 8192
    found = host_memory(LLAMA_70B, 128_256, 10**9, SETUP)
    layer = (total - 2 * 32_768 * 8192) // 80
    assert found.transplant == 8192 * (2 * (2 * 128_256 + 2 * 32_768) + 8 * 4096)
    assert found.start == 4 * 2 * (total // 32 + layer)
    assert found.checkpoints == 12 * 10**9 // 8
    assert found.end == 4 * 2 * 10**9
    assert found.merge == 2 * 4 * 8192 * 32_768
    assert found.offloaded == 0


def test_what_is_not_partitioned_is_whole_on_every_rank() -> None:
    plain = replace(SETUP, zero_stage=1, sharded=False)
    found = host_memory(LLAMA_70B, 128_256, 10**10, plain)
    assert found.start == pytest.approx(4 * 2 * 69.1e9, rel=0.01)
    assert found.checkpoints == 12 * 10**10
    assert found.end == 4 * SHARD_BYTES
    moved = replace(plain, offload_optimizer=True, offload_parameters=True, zero_stage=3)
    states = host_memory(LLAMA_70B, 128_256, 10**10, moved).offloaded
    assert states == pytest.approx((12e10 + 2 * 69.1e9) / 8, rel=0.01)


@pytest.mark.parametrize(("tensor", "nodes"), [(1, 8), (2, 1)])
def test_checkpoints_of_split_weights_are_whole_on_the_first_node(tensor: int, nodes: int) -> None:
    """Full training of 8B is above `whole_elements`: sharded over 8 nodes unless gathered."""
    words = ("model=llama-3.1-8b", "cluster=leonardo", "recipe=end_to_end", "zero=stage1")
    plan = make_plan(settings(*words, f"parallel.tensor={tensor}", "stages.full.steps=10"))
    assert plan.host is not None
    assert plan.host.checkpoints == 12 * plan.rows[0].trainable // nodes


@pytest.mark.parametrize(("stage", "warned"), [(1, True), (3, False)])
def test_a_node_without_room_for_the_weights_is_warned_of(stage: int, warned: bool) -> None:
    words = ("model=llama-3.1-70b", "cluster=leonardo", f"zero.stage={stage}")
    plan = make_plan(settings(*words, "train.recompute=full"))
    assert plan.node_memory_gib == 512
    assert plan.host is not None
    assert (plan.host.start > 512 * 2**30) == warned
    found = [line for line in plan.warnings if "host memory" in line]
    assert bool(found) == warned
    assert all("zero=stage3" in line for line in found)
