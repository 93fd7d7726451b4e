"""Checkpoints of real trainings: in both layouts, damaged, of something else."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from start_ranks import run_and_listen as run

from hpc_llm.rundir.checksums import describe, sealed, unsealed
from hpc_llm.training.checkpoints.whole import write_tensors

SHARDED = {"checkpoint": {"layout": "sharded"}}
EVERY_STEP = {"minutes": 1e-9}


def steps(folder):
    return sorted(int(path.name.split("-")[1]) for path in Path(folder).glob("step-*"))


SHARDED_KINDS = {
    **{f"zero{stage}": {"zero": stage} for stage in (1, 2, 3)},
    "lora": {"zero": 2, "method": "lora"},
    "lora-zero3": {"zero": 3, "method": "lora"},
    "bf16": {"zero": 2, "precision": "bf16"},
    "bf16-zero3": {"zero": 3, "precision": "bf16"},
}


def test_each_rank_reads_back_what_it_wrote_with_the_same_bits(tmp_path):
    whole = [{**kind, "folder": tmp_path / f"{n}-whole"} for n, kind in SHARDED_KINDS.items()]
    cut = [{**k, **SHARDED, "folder": tmp_path / f"{n}-cut"} for n, k in SHARDED_KINDS.items()]
    results, _ = run([*whole, *({**task, "stop_at": 4} for task in cut)], processes=2)
    for task in cut:
        files = json.loads((task["folder"] / "step-00000003" / "state.json").read_text())["files"]
        assert len([name for name in files if name.endswith("optim_states.pt")]) == 2
    again, _ = run(cut, processes=2)
    for name, before, after in zip(SHARDED_KINDS, results, again, strict=False):
        assert after["hash"] == before["hash"], name
        assert after["losses"] == before["losses"][3:], name


def test_sharded_ones_resume_with_2_1_2_ranks_and_at_another_stage(tmp_path):
    kinds = {1: {"zero": 1}, 2: {"zero": 2, "method": "lora"}, 3: {"zero": 3}}
    another = {1: 3, 2: 1, 3: 2}
    whole = [{**kind, "folder": tmp_path / f"{name}-whole"} for name, kind in kinds.items()]
    cut = [{**k, **SHARDED, "folder": tmp_path / f"{name}-cut"} for name, k in kinds.items()]
    results, _ = run([*whole, *({**task, "stop_at": 3} for task in cut)], processes=2)
    _, said = run([{**task, "stop_at": 3} for task in cut])
    assert len(re.findall(r": converting\b", said)) == len(cut)
    last = [{**t, "zero": another[name]} for name, t in zip(kinds, cut, strict=True)]
    shutil.copytree(cut[0]["folder"], tmp_path / "undivided")
    last.append({**cut[0], "zero": 0, "checkpoint": {}, "folder": tmp_path / "undivided"})
    again, said = run(last, processes=2)
    assert again[-1]["losses"] == pytest.approx(results[0]["losses"][4:], abs=1e-5)
    assert re.search(r"\bstep 4: ranks 1 -> 2, zero\.stage 1 -> 3\b", said)
    for name, before, after in zip(kinds, results, again, strict=False):
        assert after["losses"] == pytest.approx(before["losses"][4:], abs=1e-5), name


def test_one_layout_resumes_from_the_other_and_a_conversion_is_kept(tmp_path):
    task = {"zero": 2, "folder": tmp_path / "a"}
    tasks = [{"folder": tmp_path / "whole", "zero": 2}, {**task, **SHARDED, "stop_at": 4}]
    (whole, _), _ = run(tasks)
    for name in ("b", "c"):
        shutil.copytree(tmp_path / "a", tmp_path / name)
    there = {**task, "stop_at": 2}  # takes up the sharded one and leaves a whole one
    (_, again, *_), said = run([there, task, {**task, "zero": 3, "folder": tmp_path / "b"}])
    assert json.loads((tmp_path / "a/step-00000004/state.json").read_text())["layout"] == "whole"
    assert again["hash"] == whole["hash"]
    assert "converting" in said
    universal = tmp_path / "b/step-00000003/universal"
    kept = (universal / "files.json").stat().st_mtime_ns
    run([{**task, "zero": 1, "folder": tmp_path / "b"}])
    assert (universal / "files.json").stat().st_mtime_ns == kept
    weight = next(universal.glob("zero/*/fp32.pt"))
    weight.write_bytes(weight.read_bytes()[:-1] + b"x")
    (again,), said = run([{**task, "zero": 1, "folder": tmp_path / "b"}])
    assert again["losses"] == pytest.approx(whole["losses"][3:], abs=1e-5)
    assert re.search(r"\bfp32\.pt\b.*\bSHA-256\b", said)


class Harmful:
    """What a pickle can do to those who load it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_something_is_not_loaded_even_where_its_hash_fits(tmp_path):
    tasks = [{**SHARDED, "folder": tmp_path / name, "stop_at": 4} for name in ("same", "other")]
    run(tasks)
    for name in ("same", "other"):
        checkpoint = tmp_path / name / "step-00000003"
        file = next(checkpoint.glob("deepspeed/*optim_states.pt"))
        torch.save({"optimizer_state_dict": Harmful(tmp_path / "harmed")}, file)
        state = unsealed(json.loads((checkpoint / "state.json").read_text()))
        state["files"][f"deepspeed/{file.name}"] = describe(file)
        (checkpoint / "state.json").write_text(json.dumps(sealed(state)))
    tasks = [{**SHARDED, "folder": tmp_path / "same"}, {"zero": 2, "folder": tmp_path / "other"}]
    results, _ = run(tasks)
    assert "pickle" in results[0]["error"]
    assert "step-00000003: DeepSpeed" in results[1]["error"]
    assert not (tmp_path / "harmed").exists()


def states(path):
    """Return the largest file of a checkpoint."""
    return max(path.rglob("*.*"), key=lambda file: file.stat().st_size)


def truncate(path):
    states(path).write_bytes(states(path).read_bytes()[:1000])


def flip(path):
    states(path).write_bytes(states(path).read_bytes()[:-1] + b"\x7f")


def edit_state(old, new):
    """Return a damage that replaces bytes of `state.json`."""

    def damage(path):
        file = path / "state.json"
        before = file.read_bytes()
        assert old in before
        file.write_bytes(before.replace(old, new))

    return damage


DAMAGE = {
    "truncated": truncate,
    "flipped": flip,
    "no marker": lambda p: (p / "state.json").unlink(),
    "a count": edit_state(b'"step": 3', b'"step": 1'),
    "a name": edit_state(b"fingerprint", b"fingerqrint"),
    "no UTF-8": edit_state(b'"stage"', b'"st\xe1ge"'),
    "another type": edit_state(b'"step": 3', b'"step": "3"'),
    "an unknown layout": edit_state(b'"layout": "', b'"layout": "x'),
}
KINDS = [(1, {}), (2, {}), (1, {"zero": 2, **SHARDED})]


@pytest.mark.parametrize(("processes", "kind"), KINDS, ids=["1", "2", "sharded"])
def test_a_damaged_newest_one_is_said_and_the_one_before_is_taken(tmp_path, processes, kind):
    checkpoint = {"checkpoint": kind.get("checkpoint", {})}
    tasks = [{"folder": tmp_path / "whole"}, {**EVERY_STEP, "folder": tmp_path / "a", "stop_at": 4}]
    tasks = [{**kind, **task, **checkpoint} for task in tasks]
    (whole, _), _ = run(tasks, processes)
    assert steps(tmp_path / "a") == [2, 3]
    for name, damage in DAMAGE.items():
        shutil.copytree(tmp_path / "a", tmp_path / name)
        damage(tmp_path / name / "step-00000003")
    results, said = run([{**kind, "folder": tmp_path / name} for name in DAMAGE], processes)
    for name, result in zip(DAMAGE, results, strict=True):
        assert result["hash"] == whole["hash"], name
        assert result["losses"] == whole["losses"][2:], name
        assert (tmp_path / name / "broken-step-00000003").exists(), name
    for text in ("1,000 bytes", "SHA-256", "state.json"):
        assert text in said
    found = re.findall(r"\bbroken-step-00000003\b.*\bstep-00000002$", said, re.MULTILINE)
    assert len(found) == len(DAMAGE)


def test_what_a_killed_writer_left_is_removed_and_nothing_but_damage_restarts(tmp_path):
    run([{"folder": tmp_path / "a", "stop_at": 4}])
    (tmp_path / "a" / ".step-00000005.tmp").mkdir()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    truncate(tmp_path / "b/step-00000003")
    (tmp_path / "file").write_text("not a folder")
    tasks = [{"folder": tmp_path / name} for name in ("a", "b", "file")]
    results, said = run(tasks)
    assert (tmp_path / "broken-file").read_text() == "not a folder"
    assert re.search(r"\bbroken-step-00000003\b.*\bscratch$", said, re.MULTILINE)
    assert said.count(".step-00000005.tmp") == 2
    assert not list(tmp_path.glob("*/.step-*"))
    assert [len(result["losses"]) for result in results] == [3, 6, 6]


def test_a_checkpoint_of_something_else_is_refused_and_left_alone(tmp_path):
    made = {"settings": {"stages.full.learning_rate": 0.01}, "folder": tmp_path / "a"}
    run([{**made, "stop_at": 4}])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    others = [
        {"name": "embeddings"},
        {"width": 32},
        {"method": "head"},
        {"text": 7},
        {"fingerprint": "y", "settings": {"stages.full.learning_rate": 0.02}},
    ]
    results, _ = run([{**made, **other} for other in others], processes=2)
    stage, model, method, text, settings = (result["error"] for result in results)
    assert re.search(r"\bstage full\b.*\bembeddings\b", stage)
    assert re.search(r"\bmodel\.embed_tokens\.weight .*\b64 x 16\b.*\b64 x 32\b", model)
    assert re.search(r"\bstage full\b.*\bhead\b", method)
    assert re.search(r"step-00000003: .*\{.*\} -> \{.*\}", text)
    assert "stages.full.learning_rate: 0.01 -> 0.02; " in settings
    assert all("\n" not in result["error"] for result in results)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")} == before


def test_saving_shows_how_long_training_stood_still_and_how_long_writing_took(tmp_path):
    tasks = [{**EVERY_STEP, "folder": tmp_path / "a"}, {"folder": tmp_path / "b"}]
    (saved, unsaved), _ = run(tasks)
    assert saved["hash"] == unsaved["hash"]
    assert not any(unsaved["saving"])
    stalls = [line.get("perf/checkpoint_stall_seconds") for line in saved["saving"]]
    assert stalls[0] is None  # nothing to save before the first step
    assert all(stall > 0 for stall in stalls[1:])
    assert any(line.get("perf/checkpoint_write_seconds", 0) > 0 for line in saved["saving"])


def test_an_adapters_checkpoint_is_about_as_large_as_the_adapter(tmp_path):
    task = {"method": "lora", "width": 512, "stop_at": 2, "folder": tmp_path / "a"}
    run([task])
    checkpoint = tmp_path / "a" / "step-00000001"
    state = json.loads((checkpoint / "state.json").read_text())
    trained = sum(
        torch.Size(map(int, shape.split(" x "))).numel() for shape in state["parameters"].values()
    )
    assert all("lora_" in name or "embed" in name or "head" in name for name in state["parameters"])
    size = sum(file.stat().st_size for file in checkpoint.rglob("*"))
    assert 12 * trained < size <= 1.1 * 12 * trained + 64 * 1024


def test_all_that_training_resumes_from_is_in_the_checkpoint(tmp_path):
    run([{"folder": tmp_path / "a", "precision": "fp16", "stop_at": 4}])
    state = json.loads((tmp_path / "a/step-00000003/state.json").read_text())
    tensors = load_file(tmp_path / "a/step-00000003/state.safetensors")
    assert {name.split("/")[0] for name in tensors} == {"weight", "exp_avg", "exp_avg_sq"}
    assert len(tensors) == 3 * len(state["parameters"])
    assert state["optimizer"]["step"] >= 1
    assert state["optimizer"]["loss_scale"]["cur_scale"] >= 1
    assert state["data"]["next_row"] == 3 * 8
    assert state["data"]["fingerprint"]
    progress = state["progress"]
    assert progress["step"] == progress["batch"] == 3
    assert progress["tokens"] >= progress["label_tokens"] > 0
    assert progress["flops"] > 0
    assert progress["chain"]
    assert state["made_with"]["ranks"] == 1


def test_the_writer_writes_what_the_library_reads(tmp_path):
    tensors = {
        "weight/a": torch.randn(3, 5).T,
        "weight/b": torch.tensor(1.5),
        "exp_avg/é": torch.zeros(0, 4),
    }
    found = write_tensors(tmp_path / "x.safetensors", tensors)
    assert found == describe(tmp_path / "x.safetensors")
    read = load_file(tmp_path / "x.safetensors")
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor)
