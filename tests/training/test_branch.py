"""A stage that branches from a checkpoint of another one, against one that is never interrupted.

The reference is one stage of N + M steps at a constant learning rate: a stage of N or more steps
and a branch of M steps from its step N end with the same bits.
"""

import json
import re

import pytest
from start_ranks import start_ranks

STEADY = {"schedule": {"name": "constant", "warmup_fraction": 0.0}}
AT, MORE = 3, 3
KINDS = {
    **{f"zero{stage}": {"zero": stage} for stage in (0, 1, 2, 3)},
    "lora": {"zero": 1, "method": "lora"},
    "bf16": {"zero": 2, "precision": "bf16"},
    "sharded": {"zero": 2, "checkpoint": {"layout": "sharded"}},
    "sharded-zero3": {"zero": 3, "method": "lora", "checkpoint": {"layout": "sharded"}},
    "growing": {
        "zero": 1,
        "train": {
            "sequence_warmup": {"start": 8, "steps": 5},
            "batch_warmup": {"start": 64, "steps": 5},
        },
    },
}


def run(tasks, processes=1):
    """Train `tasks` in one start of `processes` ranks; return results and the console's lines."""
    tasks = [{"zero": 1, "method": "full", **STEADY, **task} for task in tasks]
    tasks = [{**task, "folder": f"{task['folder']}/checkpoints"} for task in tasks]
    return start_ranks("train_tiny.py", json.dumps(tasks), processes)


def stable(folder, **changes):
    return {"folder": str(folder), "branch_steps": [AT], "name": "stable", **changes}


def branch(folder, parent, **changes):
    own = {"name": "decay", "steps": MORE, "branch": ["stable", AT, str(parent)]}
    return {"folder": str(folder), **own, **changes}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_branch_ends_with_the_bits_of_one_long_stage(tmp_path, processes):
    tasks = []
    for name, kind in KINDS.items():
        place = tmp_path / name
        tasks.append({**kind, "folder": str(place / "whole"), "steps": AT + MORE})
        tasks.append({**kind, **stable(place / "stable", steps=AT + 1)})
        tasks.append({**kind, **branch(place / "decay", place / "stable")})
    results, said = run(tasks, processes)
    assert len(re.findall(rf"decay: .*\bstable@{AT}\b", said)) == len(KINDS)
    for number, name in enumerate(KINDS):
        whole, trunk, end = results[3 * number : 3 * number + 3]
        assert trunk["losses"] == whole["losses"][: AT + 1], name
        assert end["losses"] == whole["losses"][AT:], name
        assert end["hash"] == whole["hash"], name
        assert [r[0] for r in end["records"]] == list(range(1, MORE + 1)), name


def test_a_branch_resumes_from_its_own_checkpoints_on_other_ranks_and_stages(tmp_path):
    """Its start is converted where needed, and its own rate is kept at every layout."""
    falling = {"name": "linear", "warmup_fraction": 0.0, "final_fraction": 0.0}
    decay = {"schedule": falling, "rate": 0.004}
    sharded = {"zero": 2, "checkpoint": {"layout": "sharded"}}
    trunk = stable(tmp_path / "stable", **sharded)
    whole = {**sharded, **branch(tmp_path / "whole", tmp_path / "stable", **decay)}
    cut = {**sharded, **branch(tmp_path / "cut", tmp_path / "stable", **decay)}
    (_, first, _), _ = run([trunk, whole, {**cut, "stop_at": 2}], processes=2)
    (again,), said = run([cut], processes=2)
    assert not re.search(r"\bstable@", said)
    assert again["hash"] == first["hash"]
    assert again["losses"] == first["losses"][1:]
    assert first["rates"] == pytest.approx([0.004 * (1 - x / 6) for x in (1, 3, 5)])
    others = [
        {**branch(tmp_path / f"zero{zero}", tmp_path / "stable", **decay), "zero": zero}
        for zero in (0, 1, 3)
    ]
    results, _ = run(others)
    for other in results:
        assert other["losses"] == pytest.approx(first["losses"], abs=1e-5)
        assert other["rates"] == first["rates"]


def test_a_stage_that_was_killed_keeps_the_checkpoint_its_branches_need(tmp_path):
    """Stopped before and after the step; checkpoints at every step, of which two are kept."""
    every = {"minutes": 1e-9, "steps": 6}
    tasks = [{**stable(tmp_path / "a"), **every}]
    tasks += [{**stable(tmp_path / "b"), **every, "stop_at": AT}]
    tasks += [
        {**stable(tmp_path / "b"), **every, "stop_at": 4},
        {**stable(tmp_path / "b"), **every},
    ]
    (one, _, _, other), _ = run(tasks)
    assert one["hash"] == other["hash"]
    paths = [tmp_path / name / f"branches/step-{AT:08d}/state.safetensors" for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_branch_that_is_named_later_is_made_from_an_earlier_checkpoint(tmp_path):
    every = {"minutes": 1e-9, "steps": 6, "checkpoint": {"keep": 9}}
    tasks = [{**stable(tmp_path / "a"), "steps": 6}]
    tasks += [{**stable(tmp_path / "b"), **every, "branch_steps": [], "stop_at": 6}]
    run(tasks)
    path = tmp_path / "b/checkpoints" / f"step-{AT:08d}"
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    (result,), _ = run([{**stable(tmp_path / "b"), **every}])
    assert len(result["losses"]) == 6 - (AT - 1)
    kept = [tmp_path / name / f"branches/step-{AT:08d}/state.safetensors" for name in "ab"]
    assert kept[0].read_bytes() == kept[1].read_bytes()


def test_a_start_that_cannot_be_used_is_an_error_on_every_rank(tmp_path):
    run([stable(tmp_path / "stable"), stable(tmp_path / "flipped", zero=0)])
    file = tmp_path / f"flipped/branches/step-{AT:08d}/state.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    tasks = [
        branch(tmp_path / "a", tmp_path / "stable", width=32),
        branch(tmp_path / "b", tmp_path / "flipped"),
    ]
    (shapes, bits), _ = run(tasks, processes=2)
    for error in (shapes, bits):
        assert error["error"].startswith(f"stages.decay.from=stable@{AT}: ")
    assert "64 x 16 in the checkpoint and 64 x 32 in the model" in shapes["error"]
    assert "SHA-256" in bits["error"]
    assert "checkpoint.changed=restart" in bits["error"]
