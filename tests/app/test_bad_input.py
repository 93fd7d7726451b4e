"""Bad input: one line that names the value, the rule and the cure; exit code 2; nothing left."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tiny import hpc_llm

from hpc_llm.app.main import main


@pytest.fixture
def refused(capsys):
    """Run the command in this process; it must refuse with one line and exit code 2."""

    def run(*arguments):
        code = main(list(arguments))
        said = capsys.readouterr().err
        lines = [line for line in said.splitlines() if line.startswith("hpc-llm: ")]
        assert (code, len(lines)) == (2, 1), said
        assert "Traceback" not in said
        return lines[0]

    return run


@pytest.fixture
def model(shared):
    return shared / "data/models/stories260K-hf"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "ru.jsonl"
    lines = [json.dumps({"text": f"Жил-был кот номер {i}. Он любил молоко."}) for i in range(50)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tokenizr.vocab_size=9", ["tokenizr.vocab_size:", "tokenizer.vocab_size"]),
        ("tokenizer.vocab_sise=9", ["tokenizer.vocab_sise:", "tokenizer.vocab_size"]),
        ("+new.key=1", ["new.key:", "--cfg job"]),
        ("zero=stage9", ["stage9", "stage0, stage1, stage2, stage3"]),
        ("zero.stage=7", ["zero.stage=7:", "at most 3"]),
        ("stages.lora.steps=many", ["stages.lora.steps=many:", "integer"]),
        ("stages.lora.steps=0", ["stages.lora.steps=0:"]),
        ("train.batch_tokens=1000", ["train.batch_tokens=1000:", "train.sequence_length="]),
        ("launch.processes=3", ["train.batch_tokens=4096:", "1536"]),
        (
            ["zero=stage0", "checkpoint.layout=sharded"],
            ["checkpoint.layout=sharded:", "zero=stage1"],
        ),
        ("tokenizer.vocab_size=100", ["tokenizer.vocab_size=100:", "384"]),
        ("recipe.stages=[full]", ["recipe.stages=[full]:", "recipe=end_to_end"]),
        ("train.lora.alpha=3", ["train.lora.alpha:", "stages.lora.alpha"]),
        ("stages.lora.from=lora", ["stages.lora.from=lora:", "transplant, embeddings"]),
        ("correct.grid=[", ["correct.grid=[:"]),
    ],
)
def test_wrong_settings(refused, override, words, tmp_path):
    overrides = [override] if isinstance(override, str) else override
    line = refused("adapt", *overrides, f"runs_dir={tmp_path}/runs")
    for word in words:
        assert word in line
    assert not (tmp_path / "runs").exists()


def test_expert_weights_that_the_model_lacks(refused, tmp_path):
    moe = ["experiment=example", "model.architecture.model_type=mixtral"]
    moe.append("stages.lora.target_parameters=[experts.w9]")
    line = refused("adapt", *moe, f"runs_dir={tmp_path}/runs")
    assert "stages.lora.target_parameters=experts.w9:" in line
    assert "experts.gate_up_proj" in line
    assert not (tmp_path / "runs").exists()


def test_rows_longer_than_the_model_reads(refused, bad_run, tmp_path, text):
    longer = ["train.sequence_length=4096", "train.batch_tokens=8192"]
    for line in (refused("adapt", *longer, f"runs_dir={tmp_path}/runs"), bad_run(text, *longer)):
        assert "train.sequence_length=4096: " in line
        assert "train.sequence_length=512 " in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "key", "mention"),
    [
        ("zero_optimization.overlap_com=true", ".zero_optimization.overlap_com", "overlap_comm"),
        ("gradient_cliping=1", ".gradient_cliping", "gradient_clipping"),
        ("communication_data_type=fp12", "", "Invalid communication_data_type"),
    ],
)
def test_what_deepspeed_does_not_know_is_reported_before_the_first_stage(
    tmp_path, override, key, mention
):
    done = hpc_llm("adapt", f"zero.extra.{override}", f"runs_dir={tmp_path}", check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("hpc-llm: ")]
    assert f"zero.extra{key}: " in line
    assert mention in line
    assert not (tmp_path / "example" / "corpus").exists()


def test_wrong_words(refused):
    line = refused("adpt")
    assert "adpt: " in line
    assert "adapt" in line
    assert "train" not in line
    assert "--colour" in refused("adapt", "--colour")
    assert "hpc-llm adapt run=x" in refused("run=x")


@pytest.fixture
def bad_run(refused, tmp_path, model):
    """Run the recipe on a model and a text; return the refusal."""

    def run(target, *more, path=model):
        return refused(
            "adapt", f"model.path={path}", f"corpus.target={target}",
            f"runs_dir={tmp_path}/runs", "run=bad", "tokenizer.vocab_size=512", *more,
        )  # fmt: skip

    return run


def test_a_missing_file(bad_run, tmp_path):
    line = bad_run(tmp_path / "no.jsonl")
    assert f"corpus.target={tmp_path}/no.jsonl: " in line
    assert str(Path.cwd()) in line
    assert not (tmp_path / "runs").exists()


def test_an_empty_corpus(bad_run, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    assert "empty.jsonl" in bad_run(tmp_path / "empty.jsonl")
    assert not (tmp_path / "runs/bad/corpus").exists()
    assert not list((tmp_path / "runs/bad").glob(".*.tmp"))


def test_text_that_is_not_utf8(bad_run, tmp_path):
    path = tmp_path / "cp1251.txt"
    path.write_bytes("Жил-был кот. ".encode("cp1251") * 100)
    line = bad_run(path)
    assert "cp1251.txt" in line
    assert "UTF-8" in line
    assert "iconv" in line


def test_a_vocabulary_larger_than_the_text_supports(bad_run, tmp_path, text):
    line = bad_run(text, "tokenizer.vocab_size=4096")
    assert re.search(r"tokenizer\.vocab_size=4096: .*\b\d+\b", line)  # what it supports
    assert not (tmp_path / "runs/bad/tokenizer").exists()


def test_a_model_without_weights(bad_run, tmp_path, model, text):
    folder = tmp_path / "empty-model"
    folder.mkdir()
    assert re.search(rf"model\.path={folder}: .*config\.json", bad_run(text, path=folder))
    shutil.copy(model / "config.json", folder)
    assert re.search(rf"model\.path={folder}: .*\*\.safetensors", bad_run(text, path=folder))
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert re.search(rf"model\.path={folder}: .*\*\.bin", bad_run(text, path=folder))
    gone = tmp_path / "gone"
    assert re.search(rf"model\.path={gone}: .*OWNER/NAME", bad_run(text, path=gone))
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_no_run(refused, tmp_path):
    (tmp_path / "example").mkdir()
    (tmp_path / "example" / "thesis.tex").write_text("mine")
    line = refused("adapt", f"runs_dir={tmp_path}")
    assert re.search(rf"{tmp_path}/example: .*config\.yaml.*run=NAME", line)
    assert (tmp_path / "example" / "thesis.tex").read_text() == "mine"


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 64 KiB: what a full disk does, it does."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk(refused, full_disk):
    line = refused("adapt", f"runs_dir={full_disk}", "tracking=off")
    assert re.search(r"\bfull\b.*runs_dir", line)
    assert not (full_disk / "example" / "corpus").exists()
    assert not list((full_disk / "example").glob(".*.tmp"))


def test_a_place_without_write_access(refused, full_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(full_disk)], check=True)
    assert "read-only" in refused("adapt", f"runs_dir={full_disk}/runs")
    assert "/proc/runs" in refused("adapt", "runs_dir=/proc/runs")


def test_debug_shows_the_traceback(tmp_path):
    done = hpc_llm("adapt", "zero.stage=7", check=False, HPC_LLM_DEBUG="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("key", ["model.path", "runs_dir", "corpus.target"])
def test_a_path_of_an_unknown_user_is_a_plain_name(refused, key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["corpus=files", "model.path=x/y/z", "corpus.target=no.txt", f"{key}=~no-such-user/a"]
    assert "no such file" in refused("adapt", *words, "run=a")
    assert not list(tmp_path.iterdir())
