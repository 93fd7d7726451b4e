"""Settings of sequence and tensor parallelism: what is refused when they are composed."""

import pytest
from errors import user_error
from tiny import settings

from hpc_llm.pipeline import pipeline
from hpc_llm.pipeline.checks import check_start
from hpc_llm.rundir import RunFolder

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
    ("key", "other"),
    [("train.compile", "train.compile=true"),
     ("zero_quantized_nontrainable_weights",
      "+zero.extra.zero_optimization={zero_quantized_nontrainable_weights: true}"),
     ("checkpoint.layout", "checkpoint.layout=sharded")],
)  # fmt: skip
def test_tensor_parallelism_refuses_what_does_not_work_with_it(key, other):
    with user_error("parallel.tensor", key, value=2):
        settings("parallel.tensor=2", other)


@pytest.mark.parametrize(
    ("overrides", "mentions"),
    [([], ["adapters", "stages.lora.method=lora"]),
     (["~stages.lora", "model.architecture.num_key_value_heads=1"], ["num_key_value_heads=1"])],
)  # fmt: skip
def test_it_refuses_a_stage_that_it_cannot_split_before_the_first(tmp_path, overrides, mentions):
    common = ("experiment=example", "parallel.tensor=2", f"runs_dir={tmp_path}")
    cfg = settings(*common, *overrides)
    stages = pipeline(cfg)
    with user_error("parallel.tensor", *mentions, value=2):
        check_start(cfg, RunFolder(cfg.folder), stages, stages, 2)


@pytest.mark.parametrize("key", ["zero.quantized_weights", "zero.quantized_gradients"])
def test_it_refuses_quantised_traffic(key):
    with user_error("parallel.tensor", key, value=2):
        settings("parallel.tensor=2", "zero=stage3", "hardware=a100_sxm_64gb", f"{key}=true")


def test_it_needs_zero_in_half_precision():
    settings("parallel.tensor=2", "zero=stage0", "train.precision=fp32")
    with user_error("parallel.tensor", "zero.stage=0", "bf16", value=2):
        settings("parallel.tensor=2", "zero=stage0", "train.precision=bf16")


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
