"""`hpc-llm compose` as a user runs it: once, again, with other settings, killed, and wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import families
import pytest
import torch
from tiny import hpc_llm, records, results
from transformers import AutoModelForCausalLM

KIND = "lep"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A base, an instruct model and an adapted model, with text."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = families.tokenizer(families.ROWS, 0)
    for seed, name in enumerate(("base", "instruct", "adapted")):
        model = families.tiny_model("llama")
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * seed * torch.randn_like(parameter))
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def words(models, runs, *more):
    own = [f"compose.{name}={models / name}" for name in ("base", "instruct", "adapted")]
    return [f"compose={KIND}", *own, f"runs_dir={runs}", "run=made", *more]


def test_a_composition_is_made_once_and_again_with_other_settings(models, tmp_path):
    done = hpc_llm("compose", *words(models, tmp_path))
    folder = tmp_path / "made"
    assert records(folder) == ["compose"]
    assert results(folder)["compose"]["variant"] == "full"
    AutoModelForCausalLM.from_pretrained(folder / "compose/model")
    done = hpc_llm("compose", *words(models, tmp_path))
    assert "nothing to do" in done.stderr
    assert records(folder) == ["compose"]
    hpc_llm("compose", *words(models, tmp_path, "compose.variant=swap"))
    assert results(folder)["compose"]["variant"] == "swap"
    assert (folder / "superseded/compose.1/lep.json").is_file()
    said = hpc_llm("status", str(folder)).stdout
    assert str(folder) in said
    again = [word for word in words(models, tmp_path) if "adapted" not in word]
    # the result of a composition is a model for another one
    hpc_llm("compose", *again, f"compose.adapted={folder}", "run=next")
    inputs = results(tmp_path / "next")["compose"]["models"]
    assert inputs["compose.adapted"] == str(folder)


def test_the_plan_and_the_job_are_shown_without_work(models, tmp_path):
    for verb, more in (("compose", "plan.only=true"), ("plan", "plan.format=table")):
        said = hpc_llm(verb, *words(models, tmp_path, more)).stdout
        assert f"compose.instruct={models / 'instruct'}" in said
        assert f"{tmp_path}/made/compose/model" in said
    said = hpc_llm("compose", *words(models, tmp_path, "plan.only=true", "launch=slurm")).stdout
    assert "hpc-llm compose" in said or "compose --config" in said
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("verb", "overrides", "names"),
    [
        ("compose", ["compose=null"], ("compose=null", "lep", "chat_vector")),
        ("adapt", [], ("compose=lep", "hpc-llm compose")),
        ("train", [], ("compose=lep", "hpc-llm compose")),
        ("compose", ["compose.base=nowhere"], ("compose.base=nowhere",)),
        ("compose", ["compose.variant=both"], ("compose.variant=both", "swap")),
        ("compose", ["compose.adapted=null"], ("compose.adapted=null",)),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(models, tmp_path, verb, overrides, names):
    done = hpc_llm(verb, *words(models, tmp_path), *overrides, check=False)
    assert done.returncode == 2, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert all(name in line for name in names), line
    assert not (tmp_path / "made").exists()


def test_the_verb_needs_a_composition(tmp_path):
    done = hpc_llm("compose", f"runs_dir={tmp_path}", "run=made", check=False)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert all(name in line for name in ("compose=null", "compose=lep", "compose=chat_vector"))


def test_a_run_without_a_model_is_named(models, tmp_path):
    run = tmp_path / "unfinished"
    run.mkdir()
    (run / "config.yaml").write_text("run: unfinished\n")
    done = hpc_llm("compose", *words(models, tmp_path, f"compose.adapted={run}"), check=False)
    assert done.returncode == 2
    assert f"compose.adapted={run}" in done.stderr.splitlines()[-1]


def test_a_killed_composition_leaves_nothing_half(models, tmp_path):
    """Killed while it writes; the next call makes the same as an uninterrupted one."""
    large = families.tiny_config("llama")
    large.num_hidden_layers, large.intermediate_size = 60, 2048
    for name in ("base", "instruct", "adapted"):
        AutoModelForCausalLM.from_config(large).save_pretrained(tmp_path / name)
        families.tokenizer(families.ROWS, 0).save_pretrained(tmp_path / name)
    given = [word.replace(KIND, "chat_vector", 1) for word in words(tmp_path, tmp_path / "runs")]
    folder = tmp_path / "runs/made"
    command = [sys.executable, "-m", "hpc_llm.app", "compose", *given]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not list(folder.glob(".compose*/model/*.safetensors")):
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    assert not (folder / "compose").exists()
    hpc_llm("compose", *given)
    assert sorted(path.name for path in (folder / "compose").iterdir()) == [
        "chat_vector.json", "model",
    ]  # fmt: skip
    hpc_llm("compose", *given, "run=whole", "cache=false")
    one, other = (tmp_path / "runs" / n / "compose/model" for n in ("made", "whole"))
    names = {path.name for path in one.iterdir()}
    assert [n for n in names if (one / n).read_bytes() != (other / n).read_bytes()] == []


def test_with_text_the_instruct_model_and_the_result_are_evaluated(models, tmp_path):
    text = tmp_path / "text.jsonl"
    lines = [json.dumps({"text": f"{'абв где ' * 20}{n} abc {n * 7}"}) for n in range(60)]
    text.write_text("\n".join(lines))
    more = [f"corpus.target={text}", "corpus.test_documents=8", "corpus.tune_documents=4"]
    hpc_llm("compose", *words(models, tmp_path, *more))
    folder = tmp_path / "made"
    assert records(folder) == ["corpus", "compose", "evaluate/base", "evaluate/composed"]
    values = [
        json.loads((folder / f"evaluate/{point}.json").read_text())["measures"]["bpb/target"]
        for point in ("base", "composed")
    ]
    assert values[0]["n"] == values[1]["n"] > 0
    assert values[0]["value"] != values[1]["value"]
    before = results(folder)["evaluate/base"]
    hpc_llm("compose", *words(models, tmp_path, *more, "compose.variant=swap"))
    assert results(folder)["evaluate/base"] == before  # it does not depend on the variant
    assert (folder / "superseded/evaluate-composed.json.1").is_file()
