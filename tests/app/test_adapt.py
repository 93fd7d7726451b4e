"""`hpc-llm adapt` from the outside: the tiny example, again, changed, stopped and killed."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from tiny import TINY, adapt, hpc_llm, records, summary
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def example(runs):
    """The uninterrupted run that the others are compared with."""
    done = adapt(runs)
    return runs / "example", done


def weights(folder):
    files = ["model/model.safetensors", "train/embeddings/weights.safetensors"]
    files += ["train/lora/weights.safetensors", "train/lora/adapter/adapter_model.safetensors"]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}


def test_the_summary_has_every_figure(example):
    folder, _ = example
    found = summary(folder)
    points = ["base", "transplant", "embeddings", "lora", "corrected"]
    assert list(found["target_bpb"]) == list(found["source_bpb"]) == points
    assert all(v > 0 for v in [*found["target_bpb"].values(), *found["source_bpb"].values()])
    assert found["target_bpb"]["corrected"] < found["target_bpb"]["transplant"]
    measures = found["measures"]
    assert list(measures) == ["bpb/target", "bpb/source", "forgetting/source"]
    assert [list(column) for column in measures.values()] == [points, points, points[1:]]
    for name, column in measures.items():
        assert all(m["low"] <= m["value"] <= m["high"] and m["n"] > 1 for m in column.values())
        assert {m["unit"] for m in column.values()} == {"bits per byte"}, name
    source = {point: m["value"] for point, m in measures["bpb/source"].items()}
    assert source == found["source_bpb"]
    for point, forgotten in measures["forgetting/source"].items():
        assert forgotten["value"] == pytest.approx(source[point] - source["base"])
    assert 0 < found["token_ratio"] < 1
    assert found["phi"]["low"] <= found["phi"]["value"] <= found["phi"]["high"]
    assert found["tokens_per_word"]["new"] < found["tokens_per_word"]["old"]
    assert isinstance(found["flops"], int)
    assert found["pf_days"] == pytest.approx(found["flops"] / 8.64e19)
    assert found["gpu_hours"] == 0
    assert found["money"]["currency"] == "USD"
    assert found["recipe"] == "example"


def test_the_console_ends_with_the_table_and_the_paths(example):
    folder, done = example
    ratio = summary(folder)["token_ratio"]
    for word in ("corrected", "forgetting/source", "tokens per word", "phi", "index.html"):
        assert word in done.stdout
    assert str(folder / "model") in done.stdout.replace("\n", "")
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert f"<td>{ratio:.3f}\n" in page
    assert list(summary(folder)["tokenizer"]["renyi_efficiency"]) == ["old", "new"]


def test_the_model_loads_in_plain_transformers_with_equal_logits(example):
    from safetensors.torch import load_file

    folder, _ = example
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.bos_token_id == tokenizer.bos_token_id
    assert model.config.use_cache
    phi = summary(folder)["phi"]["value"]
    # the run's own parts, put together by hand: transplant, trained rows, phi * (alpha / r) B A
    own = AutoModelForCausalLM.from_pretrained(folder / "transplant").eval()
    adapter = load_file(folder / "train/lora/adapter/adapter_model.safetensors")
    with torch.no_grad():
        for name, value in load_file(folder / "train/lora/weights.safetensors").items():
            own.get_parameter(name).copy_(value)
        for name, a in adapter.items():
            if "lora_A" in name:
                b = adapter[name.replace("lora_A", "lora_B")]
                target = name.removeprefix("base_model.model.").replace(".lora_A", "")
                own.get_parameter(target).add_(phi * 2.0 * b @ a)
    ids = torch.tensor([tokenizer("Москва — столица России.").input_ids])
    torch.testing.assert_close(model(ids).logits, own(ids).logits, rtol=1e-5, atol=1e-5)


def test_the_adapter_on_the_model_that_it_names_is_the_trained_model(example):
    """The embeddings trained before it and beside it are in its file."""
    from peft import PeftConfig, PeftModel
    from safetensors.torch import load_file

    folder, _ = example
    adapter = folder / "train/lora/adapter"
    base = AutoModelForCausalLM.from_pretrained(
        PeftConfig.from_pretrained(adapter).base_model_name_or_path
    )
    whole = PeftModel.from_pretrained(base, adapter).eval()
    own = AutoModelForCausalLM.from_pretrained(folder / "transplant").eval()
    factors = load_file(adapter / "adapter_model.safetensors")
    with torch.no_grad():
        for stage in ("embeddings", "lora"):
            for name, value in load_file(folder / f"train/{stage}/weights.safetensors").items():
                own.get_parameter(name).copy_(value)
        for name, a in factors.items():
            if "lora_A" in name:
                b = factors[name.replace("lora_A", "lora_B")]
                target = name.removeprefix("base_model.model.").replace(".lora_A", "")
                own.get_parameter(target).add_(2.0 * b @ a)
    ids = torch.arange(5, 60)[None]
    torch.testing.assert_close(whole(ids).logits, own(ids).logits, rtol=1e-4, atol=1e-4)


def test_the_same_command_again_does_nothing(example, runs):
    folder, _ = example
    before = weights(folder), records(folder)
    done = adapt(runs)
    assert f"{folder}: nothing" in done.stderr
    assert (weights(folder), records(folder)) == before


def test_a_changed_setting_redoes_what_depends_on_it(example, runs):
    folder, _ = example
    before = len(records(folder))
    done = adapt(runs, "correct.rule=weighted")
    assert records(folder)[before:] == ["correct", "evaluate/corrected", "report"]
    assert "changed correct.rule: no_harm -> weighted" in done.stderr
    assert (folder / "superseded" / "model.1" / "model.safetensors").exists()
    adapt(runs)


@pytest.mark.parametrize("stage", ["train/pretrain", "train/embeddings", "train/lora"])
def test_killed_and_started_again_it_ends_with_the_same_bytes(example, tmp_path, stage):
    folder, _ = example
    words = ["adapt", *TINY, f"runs_dir={tmp_path}", "checkpoint.minutes=0.0001"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hpc_llm.app", *words], stderr=subprocess.DEVNULL
    )
    checkpoints = tmp_path / "example" / stage / "checkpoints"
    wait_for(lambda: any(checkpoints.glob("step-0000000[3-6]")) or process.poll() is not None)
    assert process.poll() is None, "it ended before it could be killed"
    process.kill()
    process.wait()
    done = hpc_llm(*words)
    assert re.search(rf"\b{stage.removeprefix('train/')}: resum.* step \d", done.stderr)
    assert weights(tmp_path / "example") == weights(folder)


def test_asked_to_stop_it_saves_and_says_75(example, tmp_path):
    folder, _ = example
    words = ["adapt", *TINY, f"runs_dir={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hpc_llm.app", *words], stderr=subprocess.PIPE, text=True
    )
    events = tmp_path / "example" / "events.jsonl"
    wait_for(lambda: events.exists() and '"embeddings", "step": 4' in events.read_text())
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert "stopped (SIGUSR1)" in said
    assert list((tmp_path / "example/train/embeddings/checkpoints").glob("step-*/state.json"))
    hpc_llm(*words)
    assert weights(tmp_path / "example") == weights(folder)


def test_every_other_way_to_stop_and_no_stage_is_done_twice(example, tmp_path):
    folder, _ = example
    own, words = tmp_path / "example", ["adapt", *TINY, f"runs_dir={tmp_path}"]
    command = [sys.executable, "-m", "hpc_llm.app", *words]

    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: any(own.glob("events.jsonl")))
    (own / "stop").touch()
    assert "stopped (stop file" in process.communicate(timeout=120)[1]
    assert process.returncode == 75
    (own / "stop").unlink()

    done = hpc_llm(*words, "train.max_hours=1e-9", check=False)
    assert (done.returncode, "stopped (train.max_hours)" in done.stderr) == (75, True)

    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: "train/embeddings" in records(own))  # between stages, or in the evaluation
    process.send_signal(signal.SIGTERM)
    assert "stopped (SIGTERM)" in process.communicate(timeout=120)[1]
    assert process.returncode == 75
    assert records(own)[-1] in ("train/embeddings", "evaluate/embeddings")

    hpc_llm(*words)
    assert records(own) == records(folder)[: len(records(own))]
    assert weights(own) == weights(folder)


def wait_for(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def losses(folder):
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return {
        (line["stage"], line["step"]): line["metrics"]["train/loss"]
        for line in lines
        if line["event"] == "train"
    }


def test_two_ranks_give_the_loss_of_one(example, tmp_path):
    folder, _ = example
    adapt(tmp_path, "launch.processes=2")
    one, two = losses(folder), losses(tmp_path / "example")
    assert one.keys() == two.keys()
    assert len(one) == 14
    for key in one:
        assert two[key] == pytest.approx(one[key], abs=1e-5), key


def test_zero_3_makes_the_same_base_model(example, tmp_path):
    folder, _ = example
    adapt(tmp_path, "zero=stage3")
    one, three = summary(folder), summary(tmp_path / "example")
    for point in ("base", "embeddings", "corrected"):
        assert three["target_bpb"][point] == pytest.approx(one["target_bpb"][point], abs=1e-3)


def test_a_second_process_is_kept_from_a_run_in_use(example, runs):
    import fcntl

    folder, _ = example
    with (folder / ".lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = adapt(runs, check=False)
    assert done.returncode == 2
    assert re.search(rf"{folder}: .*{folder}/\.lock", done.stderr)


def test_wandb_gets_the_curve_offline_and_a_broken_one_stops_nothing(example, tmp_path):
    folder, _ = example
    assert list((folder / "wandb").glob("**/*.wandb"))
    (tmp_path / "wandb.py").write_text("raise RuntimeError('broken')")
    done = adapt(tmp_path / "runs", "stages.pretrain.steps=2", PYTHONPATH=str(tmp_path))
    assert (tmp_path / "runs/example/summary.json").exists()
    assert "broken" in done.stderr


def test_a_single_verb_needs_what_comes_before(tmp_path):
    done = hpc_llm("train", *TINY, f"runs_dir={tmp_path}", check=False)
    assert done.returncode == 2
    assert re.search(r"train/pretrain: .*\bcorpus\b.*hpc-llm corpus", done.stderr)
    hpc_llm("corpus", *TINY, f"runs_dir={tmp_path}")
    assert records(tmp_path / "example") == ["corpus"]


def test_ctrl_c_is_no_traceback(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "hpc_llm.app", "adapt", *TINY, f"runs_dir={tmp_path}"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # nohup ignores it
    )
    wait_for(lambda: (tmp_path / "example" / "record.jsonl").exists())
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said


def test_the_last_cost_event_equals_the_ledger(example):
    folder, _ = example
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    costs = [line for line in lines if line["event"] == "cost"]
    assert [line["stage"] for line in costs][-1] == "report"
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    hours = sum(row["devices"] * row["seconds"] for row in rows) / 3600
    assert costs[-1]["metrics"]["cost/device_hours"] == pytest.approx(hours)
    assert costs[-1]["metrics"]["cost/flops"] == sum(row["flops"] for row in rows)
    assert summary(folder)["money"]["amount"] <= costs[-1]["metrics"]["cost/money"]
