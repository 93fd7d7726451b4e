"""Damaged files of a finished run: never believed, and made again or named by the same command."""

import itertools
import random
import shutil
import sys
from pathlib import Path

import pytest
from tiny import TINY, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chaos"))
from damage import DAMAGE, JOURNALS, SETTINGS, again, files_of, strike, two_runs

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
        parts = name.split("/")
        groups.setdefault("/".join(parts[:2]) if parts[0] == "train" else parts[0], []).append(name)
    kinds = itertools.cycle(rng.sample(list(DAMAGE), len(DAMAGE)))
    return [(rng.choice(names), kind) for names, kind in zip(groups.values(), kinds, strict=False)]


def test_the_same_command_makes_damaged_files_again_or_names_them(runs):
    sample = one_of_each(runs / "source")
    assert {kind for _, kind in sample} == set(DAMAGE)
    for name, kind in sample:
        outcome = again(runs / "source", runs, name, kind, runs / "other")
        assert outcome is None or outcome.is_right, (name, kind, outcome)
