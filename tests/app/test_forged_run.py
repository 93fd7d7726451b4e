"""Run folders in which others have written: job ids, logs and names are not believed."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from errors import user_error

from hpc_llm.app.main import main
from hpc_llm.config import compose, typed, write
from hpc_llm.distributed import visible
from hpc_llm.errors import EXIT_USER
from hpc_llm.launch import SubmittedJob, job_script, read_jobs
from hpc_llm.rundir import RunFolder, append_line

SECRET = "the user's own file"
EVIL = "\x1b]0;title\x07\x1b[31m\x9b2J\r\u202e"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins: squeue prints a file, scancel writes down what it is asked to do."""
    programs = tmp_path / "bin"
    programs.mkdir()
    texts = {
        "squeue": f'case "$*" in *%o*) cat {programs}/jobs;; *%T*) cat {programs}/states;; '
        f"*) cut -d'|' -f1 {programs}/jobs;; esac",
        "scancel": f'echo "$@" >> {programs}/cancelled',
        "sacct": "",
    }
    for name, text in texts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    (programs / "jobs").touch()
    (programs / "states").touch()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return programs


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    path = tmp_path / "runs" / "mine"
    path.mkdir(parents=True)
    write(typed(compose(["experiment=example"])), path / "config.yaml")
    (tmp_path / "secret").write_text(f"hpc-llm: {SECRET}\n")
    return RunFolder(path)


def line(folder: RunFolder, **changed: object) -> dict[str, object]:
    job = SubmittedJob(
        job="7", chain="7", part="adapt", command=["adapt"], stages=["corpus"], after=[],
        log=str(folder.path / "slurm-7.out"), when="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    return asdict(job) | changed


@pytest.mark.parametrize(
    "changed",
    [
        {"job": "7 --user=me"},
        {"job": "--me"},
        {"job": "7\n8"},
        {"job": "٧"},
        {"job": 7},
        {"job": "7_"},
        {"chain": "x"},
        {"after": ["-f"]},
        {"after": "7"},
        {"stages": None},
        {"stages": [1]},
        {"command": {"a": 1}},
        {"log": ["/etc/passwd"]},
        {"part": 3},
        {"when": "yesterday"},
        {"when": None},
    ],
    ids=str,
)
def test_a_line_that_is_no_job_is_skipped(folder: RunFolder, changed: dict, slurm: Path) -> None:
    append_line(folder.jobs, line(folder, **changed))
    assert read_jobs(folder.jobs) == []
    append_line(folder.jobs, line(folder))
    assert [job.job for job in read_jobs(folder.jobs)] == ["7"]
    assert main(["status", str(folder.path)]) == 0


@pytest.mark.parametrize("way", ["another path", "a link", "dots"])
def test_only_a_log_of_the_run_is_shown(folder, slurm, tmp_path, capsys, way: str) -> None:
    inside = folder.path / "slurm-7.out"
    logs = {
        "another path": tmp_path / "secret",
        "a link": inside,
        "dots": folder.path / ".." / ".." / "secret",
    }
    if way == "a link":
        inside.symlink_to(tmp_path / "secret")
    append_line(folder.jobs, line(folder, log=str(logs[way])))
    (slurm / "states").write_text("7|FAILED|n1|N/A|1:00|2:00|None\n")
    assert main(["logs", str(folder.path)]) == 0
    assert main(["status", str(folder.path)]) == 0
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert str(logs[way]) in said.err


@pytest.mark.parametrize("output", ["logs/%j.txt", "/tmp/none/%j.txt"])
def test_a_log_where_the_configuration_says_is_shown(
    folder, slurm, tmp_path, capsys, output
) -> None:
    stated = output.replace("/tmp/none", str(tmp_path / "logs"))
    words = ["experiment=example", "launch=slurm", f"launch.options.output={stated}"]
    write(typed(compose(words)), folder.config)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/7.txt").write_text("trained\n")
    append_line(folder.jobs, line(folder, log=str(tmp_path / "logs/7.txt")))
    assert main(["logs", str(folder.path)]) == 0
    assert "trained" in capsys.readouterr().out


def test_a_job_of_another_run_is_not_cancelled(folder, slurm, capsys) -> None:
    append_line(folder.jobs, line(folder))
    (slurm / "jobs").write_text("7|/home/me/other/job.sbatch|adapt-other\n")
    assert main(["cancel", str(folder.path)]) == EXIT_USER
    said = capsys.readouterr().err
    assert "adapt-other" in said
    assert not (slurm / "cancelled").exists()


@pytest.mark.parametrize("known", ["by script", "by name"])
def test_a_job_of_the_run_is_cancelled(folder, slurm, known: str) -> None:
    append_line(folder.jobs, line(folder))
    script, name = folder.path / "job.sbatch", "renamed|job"
    if known == "by name":
        script, name = Path("/moved/job.sbatch"), "adapt-mine"
    (slurm / "jobs").write_text(f"7|{script}|{name}\n")
    assert main(["cancel", str(folder.path)]) == 0
    assert (slurm / "cancelled").read_text() == "7\n"


def test_control_characters_do_not_reach_the_terminal(folder, slurm, capsys) -> None:
    append_line(folder.jobs, line(folder, part=f"adapt{EVIL}"))
    (folder.path / "slurm-7.out").write_text(f"a{EVIL}b\nhpc-llm: {EVIL}\n", encoding="utf-8")
    (slurm / "states").write_text("7|FAILED|n1|N/A|1:00|2:00|None\n")
    event = {"event": "train", "stage": f"lora{EVIL}", "step": 1, "time": 0.0, "metrics": {}}
    append_line(folder.events, event)
    text = folder.config.read_text().replace("name: example", f"name: {json.dumps(EVIL)}")
    folder.config.write_text(text)
    for words in (["logs"], ["status"], ["ledger"], ["diff", str(folder.path)], [EVIL]):
        main([*words, str(folder.path)])
    said = capsys.readouterr()
    for one in (said.out, said.err):
        assert set(one).isdisjoint(
            EVIL.replace("0", "").replace(";title", "")[:1] + "\x07\x9b\r\u202e"
        )
        assert "\x1b" not in one
    assert r"\x1b" in said.out


def test_text_of_people_stays_as_it_is() -> None:
    text = "Жил-был кот\tи\nпёс 猫 e\u0301 \u200f"
    assert visible(text) == text
    assert visible("50 %\r100 %\r\nend") == "50 %\n100 %\nend"
    assert visible("a\x1b[0mb\udcff") == r"a\x1b[0mb\udcff"


@pytest.mark.parametrize("character", ["\r", "\n", "\x00", "\x1b", "\x85", "\u2028", "\t"])
def test_an_option_of_sbatch_is_one_plain_line(character: str, tmp_path: Path) -> None:
    cfg = typed(compose(["experiment=example", "launch=slurm"]))
    cfg.launch.account = f"a{character}#SBATCH --wrap=x"
    with user_error("sbatch --account", value=repr(cfg.launch.account)):
        job_script(cfg, "adapt", tmp_path / "config.yaml")
    cfg.launch.account = None
    with user_error("sbatch --job-name"):
        job_script(cfg, "adapt", tmp_path / f"a{character}b" / "config.yaml")
