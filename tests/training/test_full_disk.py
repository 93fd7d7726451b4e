"""A disk without room for a checkpoint: the run stops, or continues and saves later."""

import os
import subprocess

import pytest
from errors import user_error
from start_ranks import run_and_listen as run
from test_checkpoint import EVERY_STEP, steps

from hpc_llm.config import compose, typed


@pytest.fixture
def small_disk(tmp_path):
    """A file system that two checkpoints do not fit on, and a way to make it larger."""
    place = tmp_path / "disk"
    place.mkdir()

    def resize(option):
        command = ["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(place)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if os.geteuid() != 0 or not resize("size=100k"):
        pytest.skip("needs the right to mount a small file system")
    yield place, resize
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize(
    ("layout", "background"), [("whole", True), ("whole", False), ("sharded", True)]
)
def test_a_full_disk_ends_the_run_and_the_last_checkpoint_stays(
    tmp_path, small_disk, layout, background
):
    place, resize = small_disk
    if layout == "sharded":
        resize("remount,size=200k")
    task = {"folder": place / "full", "checkpoint": {"layout": layout, "background": background}}
    tasks = [{"folder": tmp_path / "whole"}, {**task, **EVERY_STEP}]
    (whole, failed), _ = run(tasks, processes=2)
    assert "No space left on device" in failed["error"] or "another rank" in failed["error"]
    assert steps(place / "full") == [1]
    resize("remount,size=4m")
    (again,), _ = run([task], processes=2)
    assert again["hash"] == whole["hash"]
    assert again["losses"] == whole["losses"][1:]


@pytest.mark.parametrize("layout", ["whole", "sharded"])
def test_a_full_disk_is_skipped_where_the_settings_say_so(tmp_path, small_disk, layout):
    place, resize = small_disk
    if layout == "sharded":
        resize("remount,size=200k")
    task = {**EVERY_STEP, "checkpoint": {"layout": layout}, "guards": {"full_disk": "skip"}}
    task["result"] = str(tmp_path / "result")
    few = {"guards": {"full_disk": "skip", "most_skips": 2}, "folder": place / "few"}
    tasks = [{"folder": tmp_path / "whole"}, {**task, "folder": place / "full"}]
    (whole, skipped), _ = run(tasks, processes=2)
    assert skipped["unsaved"]
    assert skipped["hash"] == whole["hash"]
    assert skipped["losses"] == whole["losses"]
    assert steps(place / "full") == [1]
    assert [path.name for path in (place / "full").iterdir()] == ["step-00000001"]
    (failed,), _ = run([{**task, **few}], processes=2)
    assert len(failed["unsaved"]) == 2
    assert "No space left on device" in failed["error"] or "another rank" in failed["error"]
    resize("remount,size=4m")
    (again,), _ = run([{**task, "folder": place / "full"}], processes=2)
    assert again["unsaved"] == []
    assert again["hash"] == whole["hash"]


def test_going_back_makes_no_room():
    with user_error("guards.full_disk", "skip, stop", value="rollback"):
        typed(compose(["guards.full_disk=rollback"]))
