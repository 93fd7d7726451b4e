"""Every ZeRO stage in every precision with every method, loss scaling, offload, divided models.

A process starts in seconds and trains in fractions of one, so each start has many tasks.
"""

import math
import re
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import pytest
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from safetensors.torch import load_file
from start_ranks import METHODS, run, start_ranks
from tiny import settings

from hpc_llm.training.zero import zero_section

VARIANTS = {**METHODS, "adapters alone": {"method": "lora", "stage": {"train_embeddings": False}}}
TOLERANCE = {"fp32": 1e-5, "fp16": 1e-4, "bf16": 1e-3}  # of the loss; it moves by 1e-2


def task(folder, zero, precision="fp32", extra=None, **more):
    """Two micro-batches on each of two ranks, four on one; all weights are really divided."""
    chosen = {"extra": extra or {}, "persistence_elements": 0, **more.pop("zero_settings", {})}
    name = "-".join(map(str, [zero, precision, len(list(folder.iterdir()))]))
    place = folder / name
    place.mkdir()
    common = {"method": "full", "micro": 64, "steps": 3, "folder": str(place)}
    return {**common, "zero": zero, "precision": precision, "zero_settings": chosen, **more}


@pytest.mark.parametrize("processes", [1, 2])
def test_every_stage_precision_and_method_trains_alike(tmp_path, processes):
    combinations = list(product(VARIANTS, TOLERANCE, range(4)))
    calm = {"fp16": {"initial_scale_power": 12}}  # no step is skipped to find a scale
    results = run(
        [task(tmp_path, s, p, calm if p == "fp16" else None, **VARIANTS[m])
         for m, p, s in combinations], processes,
    )  # fmt: skip
    reference = {m: r for (m, p, s), r in zip(combinations, results, strict=True)
                 if (p, s) == ("fp32", 0)}  # fmt: skip
    for (method, precision, stage), found in zip(combinations, results, strict=True):
        what, exact = (method, precision, stage), reference[method]
        assert found["losses"] == pytest.approx(exact["losses"], abs=TOLERANCE[precision]), what
        assert abs(found["losses"][0] - found["losses"][-1]) > 5e-3, what
        norms = [[record[4] for record in r["records"]] for r in (found, exact)]
        assert norms[0][:1] == pytest.approx(norms[1][:1], rel=5e-3), what
        assert all(norm > 0.01 for norm in norms[0]), what
        if processes == 1 and VARIANTS[method]["method"] != "lora":
            same = results[combinations.index((method, precision, 1))]
            assert found["hash"] == same["hash"], what


@pytest.mark.parametrize("processes", [1, 2])
def test_gradients_are_clipped_at_their_norm(tmp_path, processes):
    clip, beta1 = 0.01, 0.9
    combinations = list(product(TOLERANCE, range(4)))
    tasks = [task(tmp_path, s, p, train={"gradient_clipping": clip}, stop_at=2)
             for p, s in combinations]  # fmt: skip
    assert run(tasks, processes) == [None] * len(tasks)
    for one, what in zip(tasks, combinations, strict=True):
        states = load_file(Path(one["folder"]) / "step-00000001" / "state.safetensors")
        moments = [value for name, value in states.items() if name.startswith("exp_avg/")]
        norm = math.sqrt(sum(float(value.double().square().sum()) for value in moments))
        # after one step the first moment is (1 - beta1) times the clipped gradient
        assert norm == pytest.approx((1 - beta1) * clip, rel=1e-2), what


@pytest.mark.parametrize("processes", [1, 2])
def test_the_loss_scale_falls_and_grows_and_resumes_from_a_checkpoint(tmp_path, processes):
    scaling = {"fp16": {"initial_scale_power": 24, "loss_scale_window": 3, "hysteresis": 1}}
    tasks = [task(tmp_path, s, "fp16", scaling, steps=14) for s in range(4)]
    cut = [task(tmp_path, s, "fp16", scaling, steps=14) for s in range(4)]
    plain = [task(tmp_path, 1, steps=14)]
    results = run([*tasks, *plain, *({**t, "stop_at": 5} for t in cut)], processes)
    whole, exact = results[:4], results[4]
    assert results[5:] == [None] * 4
    assert run([{**t, "stop_at": 6} for t in cut], processes) == [None] * 4
    for stage, (found, again) in enumerate(zip(whole, run(cut, processes), strict=True)):
        scales = [scale for scale, _ in found["scales"]]
        skipped = [count for _, count in found["scales"]]
        applied = [record[5] for record in found["records"]]
        assert not applied[0], stage
        assert any(applied), stage
        assert skipped == [applied[: n + 1].count(False) for n in range(14)], stage
        assert scales[0] == 2**23, stage
        changes = [after / before for before, after in pairwise(scales)]
        for change, done in zip(changes, applied[1:], strict=True):
            assert change in ((1, 2) if done else (0.5,)), stage
        assert 2 in changes, stage  # it grows again
        assert [record[0] for record in found["records"]] == list(range(1, 15)), stage
        assert [record[1] for record in found["records"]] == list(range(14)), stage
        assert found["tokens"] == exact["tokens"], stage
        assert again["hash"] == found["hash"], stage
        assert again["losses"] == found["losses"][9:], stage
        assert again["scales"] == found["scales"][9:], stage


def test_a_gradient_that_no_loss_scale_helps_is_an_anomaly(tmp_path):
    scaling = {"fp16": {"initial_scale_power": 3, "hysteresis": 1}}
    fault = {"fault": [0, "nan_gradient", 1000], "steps": 8, "micro": None}
    for found in run([task(tmp_path, s, "fp16", scaling, **fault) for s in range(4)]):
        assert re.search(r"\bstep 4: .*\bNaN\b", found["error"])
        assert [anomaly["kind"] for anomaly in found["troubles"]] == ["not_finite"]


@pytest.mark.parametrize("processes", [1, 2])
def test_states_on_the_host_train_alike_and_resume(tmp_path, processes):
    optimizer, parameters = {"offload_optimizer": True}, {"offload_parameters": True}
    kinds = [(1, optimizer), (2, optimizer), (3, optimizer), (3, {**optimizer, **parameters})]
    combinations = list(product(kinds, TOLERANCE))
    plain = [task(tmp_path, s, p, method="lora", steps=4) for (s, _), p in combinations]
    moved = [{**task(tmp_path, s, p, method="lora", steps=4, zero_settings=where)}
             for (s, where), p in combinations]  # fmt: skip
    cut = [{**task(tmp_path, s, p, method="lora", steps=4, zero_settings=where)}
           for (s, where), p in combinations]  # fmt: skip
    results = run([*plain, *moved, *({**t, "stop_at": 3} for t in cut)], processes)
    count = len(combinations)
    for what, here, there, again in zip(
        combinations, results[:count], results[count:], run(cut, processes), strict=False
    ):
        assert there["losses"] == pytest.approx(here["losses"], abs=TOLERANCE[what[1]]), what
        assert again["hash"] == there["hash"], what
        assert again["losses"] == there["losses"][2:], what


def test_divided_models_are_the_whole_ones(tmp_path):
    (found,), _ = start_ranks("divided_tiny.py", str(tmp_path), 2)
    disagreement = found.pop("disagreement")
    assert disagreement.startswith("rows: ")
    assert "rank 1" in disagreement
    assert {name: model.pop("tied") for name, model in found.items()} == {
        "llama": False, "qwen2": True, "gpt2": True, "mixtral": False,
    }  # fmt: skip
    for name, model in found.items():
        right = {"built": True, "loaded": True, "merged": True, "dividing": False}
        assert model == {**right, "linear": "linear"}, name


@pytest.mark.parametrize(
    ("stage", "gpu", "overlap", "expected"),
    [
        (3, True, None, True),
        (3, True, False, False),
        (3, False, None, False),
        (2, True, None, False),
        (1, True, True, True),
    ],
)
def test_deepspeed_reads_what_the_settings_say(stage, gpu, overlap, expected):
    sizes = {"prefetch_elements": 7, "persistence_elements": 6, "model_persistence_elements": 5,
             "live_elements": 4, "reuse_elements": 3}  # fmt: skip
    zero = replace(settings("zero=stage3").zero, stage=stage, overlap=overlap, **sizes)
    section = zero_section(zero, 10**9, 4, gpu=gpu)
    read = DeepSpeedZeroConfig(
        **{key: value for key, value in section.items() if value is not None}
    )
    assert read.overlap_comm is expected
    assert (read.stage, read.zero_hpz_partition_size) == (stage, 1)
    assert [
        read.prefetch_bucket_size, read.param_persistence_threshold,
        read.model_persistence_threshold, read.max_live_parameters, read.max_reuse_distance,
    ] == [7, 6, 5, 4, 3]  # fmt: skip


def test_deepspeed_reads_node_partitioning_and_quantisation():
    chosen = {"node_partition": True, "quantized_weights": True, "quantized_gradients": True}
    section = zero_section(replace(settings("zero=stage3").zero, **chosen), 10**9, 4, gpu=True)
    read = DeepSpeedZeroConfig(
        **{key: value for key, value in section.items() if value is not None}
    )
    assert read.zero_hpz_partition_size == 4
    assert read.zero_quantized_weights
    assert read.zero_quantized_gradients
