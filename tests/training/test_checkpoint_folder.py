"""Checkpoints on the disk, without training: complete or not, kept or pruned, compared."""

import json
import math
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from errors import user_error

from hpc_llm.errors import Superseded
from hpc_llm.rundir import Start, take_folder
from hpc_llm.rundir.checksums import HashedFile, describe, sealed, unsealed
from hpc_llm.rundir.fence import hold, release
from hpc_llm.training.checkpoints.branches import (
    branch_path,
    keep_branches,
    missing_branches,
    saved_steps,
)
from hpc_llm.training.checkpoints.checkpoint import Checkpoint, Expected
from hpc_llm.training.checkpoints.folder import (
    checkpoints,
    commit,
    drop_all_but_best,
    set_aside,
    temporary_folder,
    tidy,
)
from hpc_llm.training.checkpoints.marker import BadCheckpoint, CheckpointState, read_state
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


def save(folder, step, loss=None, keep=2, **options):
    temporary = temporary_folder(folder, step)
    temporary.mkdir(parents=True)
    with HashedFile(temporary / "states") as file:
        file.write(bytes([step % 256]) * 1000)
    options = {"keep_best": False, **options}
    return commit(temporary, state(step, loss, files={"states": file.found}), keep, **options)


def names(folder):
    return [path.name for path in checkpoints(folder)]


def test_what_is_committed_is_read_back(tmp_path):
    path = save(tmp_path, 3, loss=2.5)
    found = Checkpoint.read(path)
    assert (found.progress.step, found.progress.loss) == (3, 2.5)
    assert found.state.settings == SETTINGS
    assert found.damage() is None
    assert found.state.files == {"states": describe(path / "states")}


def test_the_newest_are_kept_and_the_best(tmp_path):
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.0, 5: 2.5}
    for step, loss in losses.items():
        save(tmp_path, step, loss, keep_best=True)
    assert names(tmp_path) == ["step-00000005", "step-00000004", "step-00000002"]
    assert unsealed(json.loads((tmp_path / "best").read_text()), required=True) == {
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


def test_checkpoints_of_later_steps_can_be_excluded(tmp_path):
    for step in (9, 10, 123456789):
        save(tmp_path, step, keep=9)
    assert names(tmp_path) == ["step-123456789", "step-00000010", "step-00000009"]
    assert [p.name for p in checkpoints(tmp_path, 10)] == ["step-00000010", "step-00000009"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: (path / "state.json").unlink(), r"state\.json$"),
        (lambda path: (path / "state.json").write_text("{"), r"state\.json.*line 1"),
        (lambda path: (path / "state.json").write_text("[]"), r"state\.json .*'list'"),
        (lambda path: (path / "states").unlink(), "states: No such file"),
        (lambda path: (path / "states").write_bytes(b"x" * 10), r"states .*\b10\b.*\b1,000\b"),
    ],
)
def test_what_is_not_whole_is_reported(tmp_path, damage, said):
    path = save(tmp_path, 3)
    damage(path)
    with pytest.raises(BadCheckpoint, match=said):
        Checkpoint.read(path)


def test_no_damaged_byte_of_the_marker_is_believed(tmp_path):
    path = save(tmp_path, 3, loss=2.5)
    file, known = path / "state.json", read_state(path)
    data = file.read_bytes()
    for place in range(len(data)):
        flipped = data[place] ^ (1, 0x10, 0x80)[place % 3]
        file.write_bytes(data[:place] + bytes([flipped]) + data[place + 1 :])
        with suppress(BadCheckpoint):
            assert read_state(path) == known, place
    for end in range(0, len(data) - 2, 50):
        file.write_bytes(data[:end])
        with pytest.raises(BadCheckpoint):
            read_state(path)


@pytest.mark.parametrize(
    "change",
    [
        {"progress": {"step": "3"}},
        {"progress": {"step": -3}},
        {"progress": {"step": True}},
        {"progress": {"loss": math.nan}},
        {"progress": {"step": 3, "recent": 1}},
        {"progress": {"step": 3, "window": []}},
        {"progress": {"step": 4}},
        {"progress": None},
        {"layout": "other"},
        {"files": []},
        {"optimizer": 1},
        {"unknown": 1},
    ],
)
def test_wrong_values_are_found_in_the_earlier_format_without_checksum_too(tmp_path, change):
    path = save(tmp_path, 3)
    plain = unsealed(json.loads((path / "state.json").read_text())) | {"format": 2}
    (path / "state.json").write_text(json.dumps(plain))
    assert Checkpoint.read(path).progress.step == 3
    (path / "state.json").write_text(json.dumps(plain | change))
    with pytest.raises(BadCheckpoint):
        Checkpoint.read(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"checkpoint": 5, "loss": 1}', b'{"loss": 1}', b"\0" * 20,
     b'{"checkpoint": "step-00000001", "loss": "x"}', b'{"checkpoint": "../a", "loss": 1}'],
)  # fmt: skip
def test_where_best_is_damaged_the_checkpoints_tell_which_it_is(tmp_path, content):
    for step, loss in ((1, 2.0), (2, 1.0), (3, 3.0)):
        save(tmp_path, step, loss, keep_best=True, keep=9)
    (tmp_path / "best").write_bytes(content)
    save(tmp_path, 4, 4.0, keep=1, keep_best=True)
    assert names(tmp_path) == ["step-00000004", "step-00000002"]
    (tmp_path / "best").write_bytes(content)
    drop_all_but_best(tmp_path)
    assert names(tmp_path) == ["step-00000002"]


def test_other_bytes_are_found_by_the_rank_whose_share_they_are(tmp_path):
    checkpoint = Checkpoint.read(save(tmp_path, 3))
    (checkpoint.path / "states").write_bytes(b"x" * 1000)
    assert "states" in checkpoint.damage()
    assert "SHA-256" in checkpoint.damage(slice(0, None, 2))
    assert checkpoint.damage(slice(1, None, 2)) is None


def test_another_format_is_refused_and_not_taken_for_a_broken_one(tmp_path):
    path = save(tmp_path, 3)
    found = unsealed(json.loads((path / "state.json").read_text()))
    (path / "state.json").write_text(json.dumps(sealed({**found, "format": 99})))
    with user_error(str(path), 99, 3, "checkpoint.changed=restart"):
        Checkpoint.read(path)


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


def why(found, stage="lora", fingerprint="y", parameters=None, data=None, **settings):
    """Return the error of a checkpoint for a stage with these settings; None: it has none."""
    expected = Expected(
        stage=stage, fingerprint=fingerprint, settings={**SETTINGS, **settings},
        parameters=parameters, data=data,
    )  # fmt: skip
    return Checkpoint(Path("checkpoints/step-00000003"), found).mismatch(expected)


def test_changed_settings_are_named():
    found = state(3)
    assert why(found, fingerprint="x") is None
    error = why(found, **{"stages.lora.learning_rate": 0.02, "seed": 7})
    assert error.key == "checkpoints/step-00000003"
    assert "seed: None -> 7, stages.lora.learning_rate: 0.01 -> 0.02" in error.rule
    for word in ("step 3", "checkpoint.changed=restart", "train.micro_batch_tokens"):
        assert word in error.fix
    assert (
        "corpus.target: different content" in why(found, **{"corpus.target (content)": ["b"]}).rule
    )
    assert "other files" in why(found).rule
    many = why(found, **{f"key{i}": i for i in range(8)})
    assert "key4: None -> 4, and 3 more" in many.rule
    assert all("\n" not in str(found) for found in (error, many))


def test_tuples_and_paths_are_compared_as_they_are_read_back():
    found = replace(state(3), settings={"a": [1, 2], "b": "x/y"})
    expected = Expected(stage="lora", fingerprint="y", settings={"a": (1, 2), "b": "x/y"})
    assert "other files" in Checkpoint(Path("p"), found).mismatch(expected).rule


def test_another_stage_another_model_and_another_text_are_named():
    assert re.search(r"\bstage lora\b.*\bfull\b", why(state(3), stage="full").rule)
    same = {"fingerprint": "x"}
    error = why(state(3), parameters={"a": "4 x 3", "b": "1"}, **same)
    assert re.search(r"\ba .*4 x 2 .*4 x 3 .*\bb .*\b1\b", error.rule)
    assert why(state(3), parameters={"a": "4 x 2"}, **same) is None
    error = why(state(3), data=lambda progress: {"next_row": progress.step}, **same)
    assert "{'next_row': 3}" in error.rule
    assert why(state(3), data=lambda progress: {}, **same) is None


def test_what_may_change_is_named():
    def changes(ranks):
        expected = Expected(stage="lora", fingerprint="x", made_with={"ranks": ranks})
        return Checkpoint(Path("p"), state(3)).changes(expected)

    assert changes(4) == "ranks 2 -> 4"
    assert changes(2) == ""


def test_checkpoints_that_others_branch_from_are_neither_pruned_nor_dropped(tmp_path):
    folder, steps = tmp_path / "checkpoints", [2, 4]
    for step in (1, 2, 3, 5, 6):
        save(folder, step, float(step), branches=steps, keep_best=True)
    assert names(folder) == [f"step-0000000{step}" for step in (6, 5, 2, 1)]
    assert missing_branches(tmp_path, steps) == [4]
    second = save(folder, 2, branches=steps, keep_best=True)
    assert names(folder)[2:] == ["step-00000002-2", "step-00000002", "step-00000001"]
    keep_branches(tmp_path, steps)
    drop_all_but_best(folder)
    assert names(folder) == ["step-00000001"]
    assert not second.exists()
    kept = Checkpoint.read(branch_path(tmp_path, 2))
    assert (kept.progress.step, kept.damage()) == (2, None)
    assert saved_steps(tmp_path) == [1, 2]
    assert missing_branches(tmp_path, steps) == [4]


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
