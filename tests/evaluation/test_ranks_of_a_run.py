"""The stages that evaluate a run, by two ranks: the files of one, whole and partitioned."""

import json
import shutil

import pytest
from tiny import adapt, results

SMALL = ["train.threads=1", "evaluation.batch_tokens=1024"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the finished tiny run, evaluated with other batches."""
    runs = tmp_path_factory.mktemp("trained")
    adapt(runs, "train.threads=1")
    return runs


def evaluated(trained, runs, *words):
    """Evaluate a copy of the run again with smaller batches; return its files by name."""
    shutil.copytree(trained, runs)
    adapt(runs, *SMALL, *words)
    folder = runs / "example"
    names = ("evaluate/*.*", "correct/phi.json", "model/model.safetensors")
    files = {str(f.relative_to(folder)): f.read_bytes() for n in names for f in folder.glob(n)}
    return files, results(folder)


@pytest.fixture(scope="module")
def alone(trained, tmp_path_factory):
    """The evaluation by one rank."""
    return evaluated(trained, tmp_path_factory.mktemp("alone") / "runs")[0]


def test_two_ranks_write_the_files_of_one(trained, alone, tmp_path):
    files, record = evaluated(trained, tmp_path / "runs", "launch.processes=2")
    assert {name: files[name] == data for name, data in alone.items()} == dict.fromkeys(alone, True)
    assert len(alone) == 2 * 5 + 1 + 2  # five points, the tokenizers, phi and model
    assert record["evaluate/corrected"]["samples"]


def test_a_partitioned_model_has_the_measures_and_phi_of_the_whole_one(trained, alone, tmp_path):
    words = ("launch.processes=2", "evaluation.partition=true")
    files, _ = evaluated(trained, tmp_path / "runs", *words)
    for name, data in alone.items():
        if name.startswith("evaluate/") and name.endswith(".json"):
            own, other = (json.loads(text)["measures"] for text in (data, files[name]))
            assert list(own) == list(other)
            for key, measure in own.items():
                assert other[key]["value"] == pytest.approx(measure["value"], rel=1e-6, abs=1e-7)
    own, other = (json.loads(found["correct/phi.json"]) for found in (alone, files))
    assert other["phi"]["value"] == pytest.approx(own["phi"]["value"], abs=0.02)
