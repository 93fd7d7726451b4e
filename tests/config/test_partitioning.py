"""Settings of ZeRO that cannot work are refused when the configuration is composed."""

import pytest
from errors import user_error

from hpc_llm import config

GPU = ["model=solar-10.7b", "cluster=a100_4x8", "zero=stage3"]


def composed(*words):
    return config.typed(config.compose(list(words)))


@pytest.mark.parametrize("name", ["node_partition", "quantized_weights", "quantized_gradients"])
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_what_partitions_or_gathers_parameters_needs_stage_3(name, stage):
    with user_error(f"zero.{name}", "zero.stage=3", stage, value="true"):
        composed(*GPU, f"zero.stage={stage}", f"zero.{name}=true")
    assert getattr(composed(*GPU, f"zero.{name}=true").zero, name)


@pytest.mark.parametrize("name", ["overlap", "quantized_weights", "quantized_gradients"])
def test_a_cpu_takes_no_settings_of_gpus(name):
    with user_error(f"zero.{name}", "hardware=", value="true"):
        composed("experiment=example", "zero=stage3", f"zero.{name}=true")


@pytest.mark.parametrize(
    "words", [(*GPU, "cluster.devices_per_node=1"),
              ("experiment=example", "zero=stage3", "launch=slurm", "launch.processes=1")],
)  # fmt: skip
def test_a_node_of_one_rank_has_nothing_to_gather(words):
    with user_error("zero.node_partition", 1, value="true"):
        composed(*words, "zero.node_partition=true")


def test_split_weights_are_not_quantised():
    with user_error("parallel.tensor", "zero.quantized_gradients=true", value=2):
        composed(*GPU, "zero.quantized_gradients=true", "parallel.tensor=2")


@pytest.mark.parametrize("kind", ["sequence", "tensor"])
def test_ranks_that_share_a_sequence_or_a_weight_form_no_node(kind):
    with user_error("zero.node_partition", "parallel.tensor=1", value="true"):
        composed(*GPU, "zero.node_partition=true", f"parallel.{kind}=2")


@pytest.mark.parametrize(
    ("key", "value", "setting"),
    [
        ("pipeline.stages", 2, "zero=stage3"),
        ("train_batch_size", 8, "train.batch_tokens"),
        ("optimizer.type", "Adam", "train"),
        ("bf16.enabled", True, "train.precision"),
        ("zero_optimization.overlap_comm", True, "zero.overlap"),
        ("zero_optimization.zero_hpz_partition_size", 4, "zero.node_partition"),
        ("zero_optimization.zero_quantized_weights", True, "zero.quantized_weights"),
        ("zero_optimization.offload_param.device", "cpu", "zero.offload_parameters"),
    ],
)
def test_a_key_of_deepspeed_behind_a_setting_names_the_setting(key, value, setting):
    with user_error(f"zero.extra.{key}", setting, value=value):
        composed(*GPU, f"zero.extra.{key}={value}")


@pytest.mark.parametrize(
    "key", ["fp16.initial_scale_power", "zero_optimization.offload_optimizer.ratio", "seed"]
)
def test_other_keys_of_deepspeed_pass(key):
    *sections, last = key.split(".")
    found = composed(*GPU, "zero.offload_optimizer=true", f"zero.extra.{key}=1").zero.extra
    for section in sections:
        found = found[section]
    assert found == {last: 1}
