"""Tensor parallelism: two ranks that split each weight, and two that split the batch, equal one."""

import pytest
from safetensors.torch import load_file
from start_ranks import run
from torch.testing import assert_close

from hpc_llm.training.checkpoints.checkpoint import Checkpoint
from hpc_llm.training.checkpoints.folder import checkpoints

SPLIT = {"parallel": [1, 2]}
CLIPPED = {"train": {"gradient_clipping": 0.02}}
HEADS = {"head_dim": 8, "num_attention_heads": 4, "num_key_value_heads": 2}
KINDS = {
    "full": {"micro": 32, **CLIPPED},
    "tied": {"tied": True, **CLIPPED},
    "embeddings": {"method": "embeddings"},
    "qwen3": {"family": "qwen3", "shape": HEADS},
}
STAGES = [("full", 0), ("full", 1), ("full", 2), ("full", 3), ("tied", 3), ("embeddings", 3),
          ("qwen3", 0)]  # fmt: skip
ADAM = {"rate": 0.002, "steps": 4}


def task(folder, kind, zero, **others):
    place = folder / f"{kind}-{zero}"
    return {"folder": place, "keep": f"{place}.safetensors", "zero": zero, **ADAM, **KINDS[kind],
            **others}  # fmt: skip


def assert_equal(one, other):
    assert_close(one["losses"], other["losses"], rtol=0, atol=1e-5)
    for left, right in zip(one["records"], other["records"], strict=True):
        assert left[:3] == right[:3]  # step, batch, fingerprint of the batches
        assert_close(left[4], right[4], rtol=1e-4, atol=1e-6)  # gradient norm


def assert_equal_weights(one, other):
    weights = load_file(other["keep"])
    assert weights.keys() == load_file(one["keep"]).keys()
    for name, weight in load_file(one["keep"]).items():
        assert_close(weight, weights[name], rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Tasks and results by (kind, ZeRO stage): of four ranks; and of one, by kind."""
    one, four = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("four")
    split = [task(four, *stage, **SPLIT) for stage in STAGES]
    alone = [task(one, kind, 0) for kind in KINDS]
    results = zip(split, run(split, 4), strict=True)
    return dict(zip(STAGES, results, strict=True)), dict(
        zip(KINDS, zip(alone, run(alone), strict=True), strict=True)
    )


@pytest.mark.parametrize(("kind", "zero"), STAGES)
def test_it_equals_one_rank(trained, kind, zero):
    (split, found), (alone, expected) = trained[0][kind, zero], trained[1][kind]
    assert_equal(found, expected)
    assert_equal_weights(split, alone)


def test_a_checkpoint_is_read_by_another_number_of_ranks(tmp_path, trained):
    split = task(tmp_path, "full", 1, **SPLIT)
    assert run([split | {"stop_at": 2}], 4) == [None]
    [path] = checkpoints(split["folder"])
    shapes = Checkpoint.read(path).state.parameters
    assert shapes["model.layers.0.mlp.down_proj.weight"] == "16 x 24"
    alone = task(tmp_path, "full", 1)
    assert run([alone | {"stop_at": 2}]) == [None]
    [result] = run([split], 2)
    assert_close(result["losses"], trained[1]["full"][1]["losses"][-2:], rtol=0, atol=1e-5)
    assert_equal_weights(split, trained[1]["full"][0])
