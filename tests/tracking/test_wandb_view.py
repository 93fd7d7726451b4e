import json
import logging
import subprocess
import sys

import pytest
from wandb_file import payloads

from hpc_llm.settings import TrackingSettings
from hpc_llm.tracking import EventLog, NoView, WandbView, open_view, read_events


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_DIR", raising=False)


def settings(name="wandb", mode="offline", group=None):
    return TrackingSettings(name=name, project="adapt", entity=None, group=group, mode=mode)


def train(folder, stage, steps):
    log = EventLog(folder / "events.jsonl")
    for step in steps:
        axes = {"step": step, "tokens": 100 * step, "flops": 1e9 * step}
        log.append("train", stage=stage, axes=axes, metrics={"train/loss": 1 / step})


def logged(folder):
    """Return the ids and the history rows of all offline files of a run folder."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # the background process writes its last lines; the end of a program does this
    ids, rows = set(), []
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb"), key=_created):
        for payload in payloads(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(payload)
            if record.HasField("run"):
                ids.add(record.run.run_id)
            if record.HasField("history"):
                items = record.history.item
                rows.append(
                    {(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in items}
                )
    return ids, rows


def test_trials_of_a_sweep_share_a_group_and_have_their_own_names(tmp_path):
    import wandb
    from wandb.proto import wandb_internal_pb2

    for trial in ("0", "1"):
        (tmp_path / trial).mkdir()
        WandbView(settings(group="grid-1f"), tmp_path / trial, f"grid/{trial}", {}).close()
    wandb.teardown()
    found = set()
    for path in tmp_path.glob("*/wandb/offline-run-*/*.wandb"):
        for payload in payloads(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(payload)
            if record.HasField("run"):
                found.add((record.run.run_group, record.run.display_name))
    assert found == {("grid-1f", "grid/0"), ("grid-1f", "grid/1")}


def _created(path):
    return path.stat().st_mtime_ns


def test_crash_resume_and_next_stage_are_one_growing_history(tmp_path, capfd):
    view = WandbView(settings(), tmp_path, "demo", {"train": {"rank": 8}})
    train(tmp_path, "full", [10, 20])
    view.update()
    EventLog(tmp_path / "events.jsonl").append(
        "stage", stage="full", axes={"step": 20, "tokens": 2000}, metrics={"bpb": 1.5}
    )
    train(tmp_path, "lora", [10, 20, 30])
    view.update()
    view._run.finish()  # the process is gone; this view is never closed

    EventLog(tmp_path / "events.jsonl").resume("lora", 10)
    train(tmp_path, "lora", [20, 30, 40])
    view = WandbView(settings(), tmp_path, "demo", {})
    view.close()

    ids, rows = logged(tmp_path)
    assert ids == {(tmp_path / "wandb-id").read_text().strip()}
    tokens = [row["tokens_total"] for row in rows if "train/loss" in row]
    assert tokens == [1000, 2000, 3000, 4000, 5000, 6000]
    assert [row["bpb"] for row in rows if "bpb" in row] == [1.5]
    assert rows[-1]["flops_total"] == 60e9
    survived = [e for e in read_events(tmp_path / "events.jsonl") if e["event"] == "train"]
    assert len(survived) == len(tokens)
    out, err = capfd.readouterr()
    assert out == err == ""


def test_a_stage_that_finished_and_trains_again_comes_on_top(tmp_path):
    train(tmp_path, "lora", [10])
    log = EventLog(tmp_path / "events.jsonl")
    log.append("stage", stage="lora", axes={"step": 10}, metrics={})
    log.resume("lora", 0)
    train(tmp_path, "lora", [5, 10])
    view = WandbView(settings(), tmp_path, "demo", {})
    view.close()
    _, rows = logged(tmp_path)
    assert [row["tokens_total"] for row in rows if "train/loss" in row] == [1000, 1500, 2000]


def test_a_half_written_line_waits_for_its_end(tmp_path):
    view = WandbView(settings(), tmp_path, "demo", {})
    train(tmp_path, "lora", [10])
    whole = (tmp_path / "events.jsonl").read_bytes()
    (tmp_path / "events.jsonl").write_bytes(whole[:-20])
    view.update()
    (tmp_path / "events.jsonl").write_bytes(whole)
    view.close()
    assert len(logged(tmp_path)[1]) == 1


def test_the_environment_comes_before_the_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    view = open_view(settings(mode="disabled"), tmp_path, "demo", {})
    assert isinstance(view, WandbView)
    view.close()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert isinstance(open_view(settings(), tmp_path, "demo", {}), NoView)


def test_off_is_a_view_of_nothing(tmp_path):
    view = open_view(settings(name="off"), tmp_path, "demo", {})
    view.update()
    view.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_wandb_cannot_use_is_one_warning(tmp_path, caplog):
    (tmp_path / "wandb").write_text("a file stands where the folder should be")
    train(tmp_path, "lora", [10])
    with caplog.at_level(logging.WARNING, logger="hpc_llm"):
        view = WandbView(settings(), tmp_path, "demo", {})
        view.update()
        view.close()
    assert len(caplog.records) == 1
    assert "events.jsonl" in caplog.text


@pytest.mark.parametrize("broken", ["init", "log", "finish"])
def test_a_wandb_that_raises_is_one_warning(tmp_path, broken):
    """A `wandb` module that fails at one call is put before the real one in a new process."""
    (tmp_path / "wandb.py").write_text(
        "class Run:\n"
        "    def __getattr__(self, name): return lambda *a, **k: fail(name)\n"
        "def fail(name):\n"
        f"    if name == {broken!r}: raise RuntimeError('no ' + name)\n"
        "def Settings(**k): pass\n"
        "def setup(**k): pass\n"
        "def init(**k): fail('init'); return Run()\n"
    )
    folder = tmp_path / "run"
    folder.mkdir()
    train(folder, "lora", [10, 20])
    code = (
        "import sys; from pathlib import Path; from hpc_llm.settings import TrackingSettings\n"
        "from hpc_llm.tracking import open_view\n"
        "s = TrackingSettings(name='wandb', project='p', entity=None, group=None, mode='offline')\n"
        "view = open_view(s, Path('run'), 'demo', {})\n"
        "view.update(); view.update(); view.close(); print('trained on')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "trained on\n"
    assert done.stderr.count("W&B stopped") == 1
    assert f"no {broken}" in done.stderr


def test_importing_the_room_imports_neither_wandb_nor_rich():
    code = "import sys, hpc_llm.tracking; print([m for m in ('wandb', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
