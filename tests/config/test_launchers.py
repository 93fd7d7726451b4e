"""Settings of Hydra's launcher for Slurm and what they become."""

from dataclasses import fields

import pytest
from errors import user_error
from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf

from hpc_llm import config
from hpc_llm.config import launchers

CHOSEN = "hydra/launcher=submitit_slurm"


def test_its_settings_mean_the_same_in_every_trial():
    words = [
        *("timeout_min=90", "partition=gpu", "mem_gb=64", "cpus_per_task=4", "array_parallelism=2"),
        *("nodes=3", "gpus_per_node=8", "max_num_timeout=5", "name=mine", "gres=gpu:a100:8"),
        "additional_parameters={mail-type: END}",
    ]
    given = [f"hydra.launcher.{word}" for word in words]
    given += ["+hydra.launcher.additional_parameters.switches=2"]
    trials = config.combinations(["seed=1,2", *given, CHOSEN])
    assert config.swept_keys(["seed=1,2", *given, CHOSEN]) == ["seed"]
    found = [config.typed(config.compose(overrides)) for overrides in trials]
    assert [cfg.seed for cfg in found] == [1, 2]
    for cfg in found:
        launch = cfg.launch
        assert (launch.name, launch.time, launch.partition) == ("slurm", "90", "gpu")
        assert (launch.mem, launch.cpus_per_task, launch.throttle) == ("64G", 4, 2)
        assert (cfg.cluster.nodes, cfg.cluster.devices_per_node) == (3, 8)
        assert launch.max_requeues == 5
        own = {"job-name": "mine", "gres": "gpu:a100:8", "mail-type": "END", "switches": 2}
        assert launch.options == own


def test_each_setting_of_the_plugin_has_a_meaning_or_a_reason():
    known = {field.name for field in fields(SlurmQueueConf)} - {"_target_"}
    assert known == {*launchers.MEANING, *launchers.OTHERWISE}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra/launcher=joblib"], "submitit_slurm"),
        (["~hydra/launcher"], "submitit_slurm"),
        (["hydra.launcher.nodes=2"], "hydra/launcher=submitit_slurm"),
        ([CHOSEN, "hydra.launcher.timeout=2"], "timeout_min"),
        ([CHOSEN, "hydra.launcher.zzz=2"], "max_num_timeout"),
        ([CHOSEN, "hydra.launcher.setup=[x]"], "modules"),
        ([CHOSEN, "hydra.launcher.mem_gb=1,2"], "sweep"),
        ([CHOSEN, "hydra.sweep.dir=x"], "runs_dir="),
    ],
)
def test_what_has_no_meaning_is_reported(words, said):
    with user_error(words[-1], said):
        config.combinations(["seed=1,2", *words])
