"""Where evaluation runs: one device, the devices of a node, or all."""

import pytest
from tiny import settings

from hpc_llm.accounting import Architecture
from hpc_llm.accounting.inference import inference_memory
from hpc_llm.launch import divide
from hpc_llm.pipeline import stage_names
from hpc_llm.planning import make_plan
from hpc_llm.planning.evaluation import is_partitioned, plan_evaluation

CLUSTER = ("cluster=leonardo", "zero=stage3", "launch=slurm")


def parts(*overrides):
    cfg = settings(*overrides)
    keys = ("nodes", "ntasks-per-node", "gpus-per-node")
    return {
        part.name: tuple(part.options.get(key) for key in keys)
        for part in divide(cfg, stage_names(cfg))
    }


@pytest.mark.parametrize(
    ("words", "place", "devices", "partitioned"),
    [
        (["model=llama-3.1-8b"], "one", 1, False),
        (["model=llama-3.1-8b", "evaluation.partition=true"], "node", 4, True),
        (["model=llama-3.1-70b"], "node", 4, True),
        (["model=llama-3.1-70b", "evaluation.partition=false"], "one", 1, False),
        (["model=llama-3.1-405b"], "all", 32, True),
        (["model=llama-3.1-70b", "hardware=cpu"], "one", 1, False),
    ],
)
def test_a_model_gets_the_fewest_devices_that_hold_it(words, place, devices, partitioned):
    found = plan_evaluation(settings(*CLUSTER, *words))
    assert (found.place, found.devices, found.partitioned) == (place, devices, partitioned)


def test_the_parts_of_the_chain_that_evaluate_get_these_devices():
    small, large = (parts(*CLUSTER, f"model={name}") for name in ("llama-3.1-8b", "llama-3.1-70b"))
    assert small["transplant"] == small["result"] == (1, 1, 1)
    assert large["transplant"] == large["result"] == (1, 4, 4)
    assert large["train"] == small["train"] == (8, 4, 4)
    assert large["corpus+tokenizer"] == (1, 1, None)
    joined = parts(*CLUSTER, "model=llama-3.1-405b")
    assert joined["transplant+train+result"] == (8, 4, 4)
    gres = "launch.options.gres=gpu:a100:4"
    cut = settings(*CLUSTER, "model=llama-3.1-70b", gres, "launch.options.gpus-per-node=null")
    kept = {part.name: part.options.get("gres") for part in divide(cut, stage_names(cut))}
    of_gpus = dict.fromkeys(["transplant", "train", "result"], "gpu:a100:4")
    assert kept == {"corpus+tokenizer": None} | of_gpus


def test_ranks_partition_what_does_not_fit_one_of_them():
    cfg = settings(*CLUSTER, "model=llama-3.1-70b")
    assert is_partitioned(cfg, 4, 64.0)
    assert not is_partitioned(cfg, 1, 64.0)  # nothing to partition over
    assert not is_partitioned(cfg, 4, 192.0)
    assert not is_partitioned(cfg, 4, None)  # a CPU
    assert is_partitioned(settings("evaluation.partition=true"), 2, None)


def test_the_memory_of_a_rank_is_its_share_and_what_is_gathered():
    shape = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    shape |= {"vocab_size": 1000, "intermediate_size": 96}
    arch = Architecture.from_config({"model_type": "llama", **shape})
    whole, part = (inference_memory(arch, "fp32", 512, ranks) for ranks in (1, 4))
    assert part.weights == -(-whole.weights // 4)
    assert (whole.live_parameters, part.live_parameters) == (0, whole.weights)
    assert whole.logits == 3 * 4 * 512 * 1000  # and the log-softmax: a copy and its result
    assert (part.logits, part.activations) == (whole.logits, whole.activations)


def test_hours_are_those_of_the_forward_passes_divided_by_the_devices():
    words = ("model=llama-3.1-8b", "cluster=leonardo", "evaluation.stride=512")
    one = plan_evaluation(settings(*words))
    four = plan_evaluation(settings(*words, "evaluation.partition=true"))
    assert one.hours == pytest.approx(4 * four.hours)
    more = plan_evaluation(settings(*words, "evaluation.test_bytes=600_000"))
    tokens = 2 * 5 * 300_000 / 4  # languages, points, bytes
    weights = 8.03e9 - 128_256 * 4096  # the input embedding is looked up
    rate = 312e12 * (0.64 + 0.39) / 2
    assert more.hours - one.hours == pytest.approx(2 * weights * tokens / rate / 3600, rel=0.1)


def test_plan_warns_of_a_model_that_does_not_fit():
    words = (*CLUSTER, "model=llama-3.1-70b", "train.recompute=true")
    assert not [w for w in make_plan(settings(*words)).warnings if "evaluation" in w]
    (warning,) = [
        w
        for w in make_plan(settings(*words, "evaluation.partition=false")).warnings
        if w.startswith("evaluation does not fit")
    ]
    assert "evaluation.partition=true" in warning
