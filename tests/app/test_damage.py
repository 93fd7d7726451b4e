"""Damaged files of a finished run: never believed, and made again or named by the same command."""

import errno
import itertools
import json
import os
import random
import shutil
import sys
from pathlib import Path

import pytest
from tiny import TINY, adapt, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chaos"))
from damage import (
    DAMAGE,
    JOURNALS,
    SETTINGS,
    VARYING,
    VIEWS,
    again,
    files_of,
    group_of,
    strike,
    two_runs,
)

from hpc_llm.app.main import main
from hpc_llm.pipeline import pipeline
from hpc_llm.pipeline.integrity import damage_of, verified_todo
from hpc_llm.report import journal_problems
from hpc_llm.rundir import RunFolder

UNBELIEVED = ("config.yaml", "starts.jsonl")  # no result depends on their content


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with a finished run, `source`, and one of another seed, `other`."""
    folder = tmp_path_factory.mktemp("runs")
    two_runs(folder)
    return folder


@pytest.fixture(scope="module")
def stages(runs):
    """Return the stages of the run."""
    return pipeline(settings(*TINY, *SETTINGS, f"runs_dir={runs}"))


@pytest.fixture
def folder(runs):
    """Return a copy of the finished run, in its place."""
    shutil.rmtree(runs / "a", ignore_errors=True)
    return RunFolder(shutil.copytree(runs / "source", runs / "a"))


def test_every_damage_of_every_file_is_found(runs, stages, folder):
    by_name = {stage.name: stage for stage in stages}
    owners = {file: name for name, r in folder.records().items() for file in r["files"]}
    names = files_of(folder.path)
    assert set(names) - set(owners) == {*UNBELIEVED, *JOURNALS}
    for name, kind in itertools.product(names, DAMAGE):
        if name in UNBELIEVED:
            continue
        before = (folder.path / name).read_bytes()
        if not strike(folder.path, name, kind, runs / "other"):
            continue
        if name in owners:
            found = [damage.file for damage in damage_of(folder, by_name[owners[name]])]
            assert found == [name], (name, kind)
        else:
            lost = set(by_name) - set(folder.done({n: s.fingerprint for n, s in by_name.items()}))
            assert journal_problems(folder) or lost, (name, kind)
        (folder.path / name).write_bytes(before)
    assert verified_todo(folder, stages, stages, "adapt") == []


def one_of_each(source: Path) -> list[tuple[str, str]]:
    """Return (file, damage): every stage and journal, and every kind of damage at least once."""
    rng = random.Random(5)
    groups: dict[str, list[str]] = {}
    for name in files_of(source):
        groups.setdefault(group_of(name), []).append(name)
    kinds = itertools.cycle(rng.sample(list(DAMAGE), len(DAMAGE)))
    return [(rng.choice(names), kind) for names, kind in zip(groups.values(), kinds, strict=False)]


def test_files_of_results_hold_no_times(runs):
    """Else a stage that runs again writes other bytes, seldom where it takes milliseconds."""
    for name in files_of(runs / "source"):
        timed = name.endswith(VARYING) or name.startswith((*VIEWS, *JOURNALS))
        if name.endswith(".json") and not timed:
            assert "seconds" not in keys_of(json.loads((runs / "source" / name).read_bytes())), name


def keys_of(part) -> set[str]:
    """Return the keys of all mappings in `part`."""
    if isinstance(part, list):
        return set().union(*map(keys_of, part))
    return set(part).union(*map(keys_of, part.values())) if isinstance(part, dict) else set()


@pytest.mark.parametrize("kind", ["half", "empty", "removed", "garbage", "bit"])
def test_verify_names_what_is_damaged(runs, folder, capsys, kind):
    words = ["verify", str(folder.path)]
    assert main(words) == 0
    broken = ["model/model.safetensors", "corpus/target/test.jsonl", "report/cost.svg"]
    for name in broken:
        strike(folder.path, name, kind, runs / "other")
    capsys.readouterr()
    assert main(words) == 1
    said = capsys.readouterr().out
    assert [name for name in files_of(folder.path) + broken if f"/{name}: " in said][-3:] == broken
    assert said.count(": ") == len(broken) + 1


@pytest.mark.parametrize("name", ["record.jsonl", "ledger.jsonl", "events.jsonl", "config.yaml"])
@pytest.mark.parametrize("content", [None, b"", b"\xff{"])
def test_verify_names_a_journal_that_is_lost_or_damaged(folder, capsys, name, content):
    (folder.path / name).unlink()
    if content is not None:
        (folder.path / name).write_bytes(content)
    assert main(["verify", str(folder.path)]) == 1
    assert str(folder.path / name) in capsys.readouterr().out


def test_verify_of_what_is_no_run_folder_is_refused(tmp_path, capsys):
    for words in ([], [str(tmp_path)], [str(tmp_path / "none")]):
        assert main(["verify", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_removed_plot_is_drawn_again_and_the_report_says_what_the_ledger_lacks(runs, folder):
    (folder.path / "report/phi.svg").unlink()
    folder.ledger.unlink()
    adapt(runs, *SETTINGS)
    assert (folder.path / "report/phi.svg").read_bytes() == (
        runs / "source/report/phi.svg"
    ).read_bytes()
    lacking = json.loads(folder.summary.read_text())["not_in_ledger"]
    assert {"corpus", "train/lora", "correct"} <= set(lacking)
    assert "not in the ledger" in folder.report.read_text()


def test_an_error_of_the_disk_is_one_line_with_the_file(tmp_path, capsys, monkeypatch):
    def fail(handle):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    assert main(["corpus", *TINY, *SETTINGS, f"runs_dir={tmp_path}"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "a/config.yaml") in said[-1]
    assert os.strerror(errno.EIO) in said[-1]
    assert "Traceback" not in "".join(said)


def test_the_same_command_makes_damaged_files_again_or_names_them(runs):
    sample = one_of_each(runs / "source")
    assert {kind for _, kind in sample} == set(DAMAGE)
    for name, kind in sample:
        outcome = again(runs / "source", runs, name, kind, runs / "other")
        assert outcome is None or outcome.is_right, (name, kind, outcome)
