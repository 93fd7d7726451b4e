"""The job script as text, and run by bash with stand-ins for srun and scontrol."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from errors import user_error

from hpc_llm.config import compose, typed
from hpc_llm.launch import job_script, log_path

SLURM = ("experiment=example", "launch=slurm")


def script(*overrides: str) -> str:
    cfg = typed(compose([*SLURM, *overrides]))
    return job_script(cfg, "adapt", cfg.folder / "config.yaml")


def directives(*overrides: str) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", script(*overrides), re.MULTILINE)
    assert len(dict(found)) == len(found)
    return dict(found)


def test_one_task_for_each_gpu_and_one_value_for_each_option() -> None:
    options = directives("cluster=h100_4x8", "launch.time=24:00:00", "launch.account=me")
    assert (options["nodes"], options["ntasks-per-node"], options["gpus-per-node"]) == tuple("488")
    assert options["time"] == "24:00:00"
    assert options["account"] == "me"
    assert options["signal"] == "USR1@300"
    assert options["chdir"] == os.getcwd()
    assert options["output"] == f"{os.getcwd()}/runs/example/slurm-%j.out"
    assert not {"partition", "mem", "cpus-per-task"} & set(options)
    assert not [value for value in options.values() if "$" in value]


def test_on_cpus_a_device_is_a_core() -> None:
    options = directives("cluster.nodes=2", "cluster.devices_per_node=16", "launch.processes=4")
    assert (options["ntasks-per-node"], options["cpus-per-task"]) == ("4", "4")
    assert "gpus-per-node" not in options
    assert "SRUN_CPUS_PER_TASK" in script()


def test_options_of_the_user_win() -> None:
    more = ("launch.options.gpus-per-node=null", "launch.options.gres=gpu:h100:8")
    options = directives("cluster=h100_4x8", *more, "launch.options.mail_type=END")
    assert "gpus-per-node" not in options
    assert options["gres"] == "gpu:h100:8"
    assert options["mail-type"] == "END"
    assert directives("launch.options.exclusive=true")["exclusive"] == ""
    assert directives("launch.options.nice=0")["nice"] == "0"
    assert "requeue" not in directives("launch.options.requeue=false")


def test_a_line_break_is_refused() -> None:
    for key in ("launch.partition", "run", "launch.options.comment"):
        with user_error(key) as caught:
            script(f"{key}='a\nb'")
        assert r"a\nb" in caught.value.value


@pytest.mark.parametrize(
    ("override", "key", "value", "mention"),
    [
        ("launch.time=forever", "launch.time", "forever", "2-00:00:00"),
        ("launch.time=4:59", "launch.time", "4:59", "10"),
        ("launch.max_requeues=-1", "launch.max_requeues", -1, "0"),
        ("launch.max_failures=-1", "launch.max_failures", -1, "0"),
        ("launch.cpus_per_task=0", "launch.cpus_per_task", 0, "0"),
        ("launch.name=pbs", "launch.name", "pbs", "local, slurm"),
        ("launch.options.Mail=x", "launch.options.Mail", None, "launch.options.mail-type="),
        ("launch.name=local launch.qos=a", "launch.qos", "a", "launch=slurm"),
    ],
)
def test_wrong_settings_are_reported(override: str, key: str, value: object, mention: str) -> None:
    with user_error(key, mention, value=value):
        typed(compose([*SLURM, *override.split()]))


@pytest.mark.parametrize("time", ["10", "10:30", "0:10:00", "1-0", "1-0:5", "1-0:0:0", "infinite"])
def test_every_form_of_a_time_limit_is_taken(time: str) -> None:
    assert directives(f"launch.time={time}")["time"] == time


Job = Callable[..., tuple[int, str, list[str], str]]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Run the script of an awkward run folder; srun gives `code`, scontrol is written down."""
    folder = tmp_path / 'it\'s $HOME "a"'
    folder.mkdir()
    cfg = typed(compose([*SLURM, "launch.max_requeues=2"]))
    (tmp_path / "job").write_text(job_script(cfg, "train", folder / "config.yaml"))
    stand_ins = {
        "srun": 'printf "%s\\n" "$@" > srun; mkdir "$TORCH_EXTENSIONS_DIR"\n'
        'echo "$TORCH_EXTENSIONS_DIR" > compiled; exit "$CODE"',
        "scontrol": 'echo "$@" >> scontrol',
    }
    for name, text in stand_ins.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    def run(code: int, restarts: int = 0) -> tuple[int, str, list[str], str]:
        variables = {"CODE": str(code), "SLURM_RESTART_COUNT": str(restarts)}
        variables |= {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "3"}
        variables["PATH"] = f"{tmp_path / 'bin'}:/usr/bin:/bin"
        done = subprocess.run(
            ["bash", "job"],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        arguments = (tmp_path / "srun").read_text().splitlines()
        asked = tmp_path / "scontrol"
        assert arguments[-1] == str(folder / "config.yaml")
        compiled = Path((tmp_path / "compiled").read_text().strip())
        assert compiled == folder / f".torch_extensions-7-{restarts}"
        assert not compiled.exists()
        said = done.stdout + done.stderr
        return done.returncode, said, arguments, asked.read_text() if asked.exists() else ""

    return run


def test_the_work_of_a_job_is_one_step_with_the_configuration_as_it_is(job: Job) -> None:
    code, said, arguments, asked = job(0)
    assert (code, said, asked) == (0, "", "")
    assert arguments[:-1] == [
        "--kill-on-bad-exit=1", "--wait=0", "env", "--block-signal=USR1,USR2",
        "hpc-llm", "train", "--config",
    ]  # fmt: skip


def test_a_job_that_stopped_in_good_order_is_requeued_but_not_for_ever(job: Job) -> None:
    code, said, _, asked = job(75, restarts=1)
    assert (code, asked) == (75, "requeue 7\n")
    assert re.search(r"restart 2\b.*\b2\b", said)  # this restart, and how many there may be
    code, said, _, asked = job(75, restarts=2)
    assert (code, asked) == (75, "requeue 7\n")
    assert "launch.max_requeues=2" in said


def test_a_failure_is_a_failure(job: Job) -> None:
    code, _, _, asked = job(9)
    assert (code, asked) == (9, "")


def test_an_array_has_a_folder_a_log_and_a_name_for_each_of_its_tasks(tmp_path: Path) -> None:
    cfg = typed(compose([*SLURM, "launch.throttle=2"]))
    folder = tmp_path / "it's %j"
    text = job_script(cfg, "adapt", folder / "config.yaml", tasks=[5, 0, 1, 2])
    assert "#SBATCH --array=0-2,5%2\n" in text
    assert "%%j/%a/slurm-%A_%a.out'\n" in text
    stand_ins = {"srun": 'printf "%s\\n" "$@" > srun; exit 75', "scontrol": 'echo "$@" > scontrol'}
    for name, program in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{program}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "5"}
    variables |= {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_CPUS_PER_TASK": "1"}
    (tmp_path / "job").write_text(text.replace("export PATH=", "ignored="))
    done = subprocess.run(["bash", "job"], cwd=tmp_path, env=variables, check=False)
    assert done.returncode == 75
    (path,) = re.findall(r"--config\n(.*)\n", (tmp_path / "srun").read_text())
    assert Path(path) == folder / "5" / "config.yaml"
    assert (tmp_path / "scontrol").read_text() == "requeue 7_5\n"  # 7 alone is the whole array


def test_without_a_throttle_all_tasks_may_run() -> None:
    cfg = typed(compose([*SLURM]))
    text = job_script(cfg, "adapt", cfg.folder / "config.yaml", tasks=[0, 2])
    assert "#SBATCH --array=0,2\n" in text


def test_the_log_of_a_task_is_found_where_the_user_put_it() -> None:
    cfg = typed(compose([*SLURM]))
    assert log_path(cfg, Path("/runs/a/3"), "7_3") == Path("/runs/a/3/slurm-7_3.out")
    named = typed(compose([*SLURM, "launch.options.output='/logs/%A-%a.out'"]))
    assert log_path(named, Path("/runs/a/3"), "7_3") == Path("/logs/7-3.out")
    named = typed(compose([*SLURM, "launch.options.output='/logs/%j.out'"]))
    assert log_path(named, Path("/runs/a"), "7") == Path("/logs/7.out")
