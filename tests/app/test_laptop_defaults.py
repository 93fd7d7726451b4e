"""Training settings for a laptop are never taken silently on a cluster or for a large model."""

import pytest
from errors import user_error

from hpc_llm import config
from hpc_llm.app.main import main

GPUS = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "4", "SLURM_GPUS_ON_NODE": "8"}
LARGE = ["model=solar-10.7b", "corpus.target=ru.jsonl"]
SMALL = ["model.path=small/model", "corpus.target=ru.jsonl"]
JOBS = ["launch=slurm", "hardware=h100_sxm"]


def check(words, environment):
    cfg = config.typed(config.compose(words, example=True))
    config.refuse_laptop_defaults(words, cfg, environment)


@pytest.mark.parametrize(
    ("words", "environment", "mention"),
    [
        (LARGE, {}, "cluster=NAME"),
        ([*LARGE, "train.batch_tokens=1_048_576"], {}, "train.batch_tokens=1048576"),
        (SMALL, GPUS, "cluster.nodes=4 cluster.devices_per_node=8"),
        (SMALL, {"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "0,1"}, "cluster=NAME"),
        ([*SMALL, *JOBS], {}, "cluster=NAME"),
    ],
)
def test_they_are_refused(words, environment, mention):
    with user_error("cluster", mention, "cluster=local", value="local"):
        check(words, environment)


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        (SMALL, {}),
        (SMALL, {"SLURM_JOB_ID": "7"}),  # a job on CPUs
        ([], GPUS),  # the embedded example
        ([*LARGE, "cluster=local"], GPUS),
        ([*LARGE, "cluster=h100_4x8"], GPUS),
        ([*LARGE, "train=cluster"], GPUS),
        (["model.path=small/model", "launch=slurm"], {}),
    ],
)
def test_they_are_taken_where_they_are_asked_for_or_right(words, environment):
    check(words, environment)


def test_the_command_refuses_before_anything_is_written(capsys, tmp_path):
    for words in (LARGE, [*LARGE, "-m", "seed=1,2"], [*LARGE, "plan.only=true"]):
        assert main(["adapt", *words, f"runs_dir={tmp_path}"]) == 2
        assert "cluster=local: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_plan_warns_of_them(capsys):
    assert main(["plan", "model=solar-10.7b"]) == 0
    assert "add cluster=NAME" in capsys.readouterr().out
    assert main(["plan", "model=solar-10.7b", "cluster=a100_4x8"]) == 0
    assert "add cluster=NAME" not in capsys.readouterr().out
