"""Checkpoints on the disk, without training: complete or not, kept or pruned, compared."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hpc_llm.errors import Superseded, UserError
from hpc_llm.rundir import Start, take_folder
from hpc_llm.rundir.fence import hold, release
from hpc_llm.training.checkpoints.checksums import HashedFile, describe
from hpc_llm.training.checkpoints.differences import made_otherwise, other_model, refusal
from hpc_llm.training.checkpoints.folder import (
    BadCheckpoint,
    CheckpointState,
    checkpoints,
    commit,
    drop_all_but_best,
    read_state,
    set_aside,
    temporary_folder,
    tidy,
    verify,
)
from hpc_llm.training.progress import Progress

SETTINGS = {
    "stages.lora.learning_rate": 0.01,
    "stages.lora.steps": 6,
    "corpus.target (content)": ["a"],
}


def state(step, loss=None, **changes):
    return CheckpointState(
        stage="lora", fingerprint="x", progress=Progress(step=step, loss=loss), layout="whole",
        data={}, parameters={"a": "4 x 2"}, settings=SETTINGS, made_with={"ranks": 2},
        optimizer={}, **changes,
    )  # fmt: skip


def save(folder, step, loss=None, keep=2, keep_best=False):
    temporary = temporary_folder(folder, step)
    temporary.mkdir(parents=True)
    with HashedFile(temporary / "states") as file:
        file.write(bytes([step % 256]) * 1000)
    return commit(
        temporary, state(step, loss, files={"states": file.found}), keep, keep_best=keep_best
    )


def names(folder):
    return [path.name for path in checkpoints(folder)]


def test_what_is_committed_is_read_back(tmp_path):
    path = save(tmp_path, 3, loss=2.5)
    found = read_state(path)
    assert (found.progress.step, found.progress.loss, found.settings) == (3, 2.5, SETTINGS)
    verify(path, found.files)
    assert found.files == {"states": describe(path / "states")}


def test_the_newest_are_kept_and_the_best(tmp_path):
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.0, 5: 2.5}
    for step, loss in losses.items():
        save(tmp_path, step, loss, keep_best=True)
    assert names(tmp_path) == ["step-00000005", "step-00000004", "step-00000002"]
    assert json.loads((tmp_path / "best").read_text()) == {
        "checkpoint": "step-00000002", "loss": 1.0,
    }  # fmt: skip
    save(tmp_path, 6, 0.5, keep_best=True)
    save(tmp_path, 7, None, keep_best=True)
    assert names(tmp_path) == ["step-00000007", "step-00000006"]
    save(tmp_path, 8, 9.0, keep=1, keep_best=True)
    assert names(tmp_path) == ["step-00000008", "step-00000006"]
    drop_all_but_best(tmp_path)
    assert names(tmp_path) == ["step-00000006"]


def test_without_keep_best_only_the_newest_stay_and_a_finished_stage_keeps_none(tmp_path):
    folder = tmp_path / "checkpoints"
    for step in range(1, 6):
        save(folder, step, loss=float(step), keep=3)
    assert names(folder) == ["step-00000005", "step-00000004", "step-00000003"]
    drop_all_but_best(folder)
    assert not folder.exists()


def test_a_second_checkpoint_of_a_step_does_not_replace_the_first(tmp_path):
    first = save(tmp_path, 4)
    second = save(tmp_path, 4)
    assert first.exists()
    assert names(tmp_path) == ["step-00000004-2", "step-00000004"]
    assert checkpoints(tmp_path)[0] == second
    save(tmp_path, 5)
    assert names(tmp_path) == ["step-00000005", "step-00000004-2"]


def test_checkpoints_of_later_steps_can_be_left_out(tmp_path):
    for step in (9, 10, 123456789):
        save(tmp_path, step, keep=9)
    assert names(tmp_path) == ["step-123456789", "step-00000010", "step-00000009"]
    assert [p.name for p in checkpoints(tmp_path, 10)] == ["step-00000010", "step-00000009"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: (path / "state.json").unlink(), "has no state.json"),
        (lambda path: (path / "state.json").write_text("{"), "state.json cannot be read"),
        (lambda path: (path / "state.json").write_text("[]"), "state.json cannot be read"),
        (lambda path: (path / "states").unlink(), "states: No such file"),
        (lambda path: (path / "states").write_bytes(b"x" * 10), "states has 10 bytes, not 1,000"),
        (lambda path: (path / "states").write_bytes(b"x" * 1000), "SHA-256 differs"),
    ],
)
def test_what_is_not_whole_is_told(tmp_path, damage, said):
    path = save(tmp_path, 3)
    damage(path)
    with pytest.raises(BadCheckpoint, match=said):
        verify(path, read_state(path).files)


def test_another_format_is_refused_and_not_taken_for_a_broken_one(tmp_path):
    path = save(tmp_path, 3)
    found = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**found, "format": 99}))
    with pytest.raises(UserError, match=r"another version of hpc-llm \(format 99"):
        read_state(path)


def test_what_a_killed_writer_left_is_no_checkpoint_and_is_removed(tmp_path):
    save(tmp_path, 3)
    half = temporary_folder(tmp_path, 4)
    half.mkdir()
    (half / "state.safetensors").write_bytes(b"half")
    converted = tmp_path / "step-00000003" / ".universal.tmp"
    converted.mkdir()
    assert names(tmp_path) == ["step-00000003"]
    assert sorted(tidy(tmp_path)) == [".step-00000004.0.tmp", ".universal.tmp"]
    assert not half.exists()
    assert not converted.exists()
    assert names(tmp_path) == ["step-00000003"]


def test_one_put_aside_counts_no_more_and_only_the_last_stays(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step, keep=9)
    for path in checkpoints(tmp_path)[:2]:
        set_aside(path)
    assert names(tmp_path) == ["step-00000001"]
    assert [path.name for path in tmp_path.glob("broken-*")] == ["broken-step-00000002"]


def test_a_hashed_file_has_the_hash_of_what_is_on_the_disk(tmp_path):
    with HashedFile(tmp_path / "file") as file:
        file.write(b"")
        file.write(bytearray(b"abc") * 20_000_000)  # more than a block
        file.write(memoryview(b"end"))
    assert file.found == describe(tmp_path / "file")
    assert file.found["bytes"] == 60_000_003


def why(found, stage="lora", fingerprint="y", **settings):
    return refusal("step-00000003", found, stage, fingerprint, {**SETTINGS, **settings})


def test_changed_settings_are_told_by_name():
    found = state(3)
    assert why(found, fingerprint="x") is None
    told = why(found, **{"stages.lora.learning_rate": 0.02, "seed": 7})
    assert "seed: None -> 7, stages.lora.learning_rate: 0.01 -> 0.02; give the earlier ones" in told
    assert "go on from step 3, or checkpoint.changed=restart to begin lora anew" in told
    assert "train.micro_batch_tokens" in told
    assert "corpus.target: another content;" in why(found, **{"corpus.target (content)": ["b"]})
    assert "other files, or another version of hpc-llm" in why(found)
    many = why(found, **{f"key{i}": i for i in range(8)})
    assert "key4: None -> 4, and 3 more" in many
    assert all("\n" not in text for text in (told, many))


def test_tuples_and_paths_are_compared_as_they_are_read_back():
    found = replace(state(3), settings={"a": [1, 2], "b": "x/y"})
    assert "other files" in refusal("p", found, "lora", "y", {"a": (1, 2), "b": "x/y"})


def test_another_stage_and_another_model_are_told():
    assert "is a checkpoint of the stage lora, not of full" in why(state(3), stage="full")
    told = other_model(Path("step-00000003"), state(3), {"a": "4 x 3", "b": "1"})
    assert "another model: a is 4 x 2 there and 4 x 3 here, b is missing there and 1 here" in told
    assert other_model(Path("step-00000003"), state(3), {"a": "4 x 2"}) is None


def test_what_may_change_is_told():
    assert made_otherwise(state(3), {"ranks": 4}) == "ranks 2 -> 4"
    assert made_otherwise(state(3), {"ranks": 2}) == ""


def test_parts_of_an_earlier_start_are_in_no_checkpoint_of_a_later_one(tmp_path):
    ghost, own = (temporary_folder(tmp_path, 4, start) for start in (1, 2))
    for folder in (ghost, own):
        folder.mkdir()
        (folder / f"{folder.name[-5]}.part").write_text("x")
    path = commit(own, state(4), 2, keep_best=False)
    assert sorted(file.name for file in path.iterdir()) == ["2.part", "state.json"]
    assert tidy(tmp_path) == [".step-00000004.1.tmp"]


def test_a_left_over_start_commits_nothing(tmp_path):
    log = tmp_path / "starts.jsonl"
    first = take_folder(log, Start(job="7"))
    token = json.loads(log.read_text())["token"]
    take_folder(log, Start(job="8", hosts="node3"))
    try:
        hold(first, log, token)  # as the left-over process does
        with pytest.raises(Superseded, match="start 2"):
            save(tmp_path / "checkpoints", 3)
    finally:
        release()
    assert names(tmp_path / "checkpoints") == []
