"""`hpc-llm status`, `logs` and `cancel` where there is no Slurm; with it: tests/slurm."""

import re
import time
from dataclasses import asdict

import pytest

from hpc_llm.accounting import Ledger, LedgerRow
from hpc_llm.app.main import main
from hpc_llm.config import compose, typed, write
from hpc_llm.errors import EXIT_USER
from hpc_llm.launch import SubmittedJob, record_jobs
from hpc_llm.rundir import RunFolder, append_line


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run folder with a configuration, on a machine without Slurm."""
    monkeypatch.setenv("PATH", "/nowhere")
    write(typed(compose(["experiment=example"])), tmp_path / "config.yaml")
    return RunFolder(tmp_path)


def trained(folder, steps, ago, **metrics):
    """Leave a line of a stage of 100 steps, `ago` seconds old."""
    line = {"event": "train", "stage": "lora", "step": steps, "planned_steps": 100}
    metrics = {"train/loss": 2.0, **metrics}
    append_line(folder.events, line | {"time": time.time() - ago, "metrics": metrics})


def submitted(folder, **changed):
    job = SubmittedJob(
        job="7",
        chain="7",
        part="train",
        command=["adapt"],
        stages=["train/lora", "correct"],
        after=[],
        log=str(folder.path / "slurm-7.out"),
        when="2026-01-01T00:00:00+00:00",
    )
    record_jobs(folder.jobs, [SubmittedJob(**(asdict(job) | changed))])


def test_what_is_left_is_reported_by_the_last_interval_then_by_the_runs_projection(folder, capsys):
    trained(folder, 10, 60)
    trained(folder, 20, 40)
    assert main(["status", str(folder.path)]) == 0
    said = capsys.readouterr().out
    assert re.search(rf"^{folder.path}: .*\bjob\b", said, re.MULTILINE)
    assert re.search(r"train/lora: step 20 of 100, loss 2\.000, .* 2:0\d\b", said)
    assert "spent: nothing" in said
    trained(folder, 60, 0, **{"cost/hours_left": 2.5})
    main(["status", str(folder.path)])
    assert re.search(r"\btraining .* 2:(30:00|29:5\d)\b", capsys.readouterr().out)


def test_money_is_that_of_the_ledger(folder, capsys):
    row = LedgerRow(run="a", stage="lora", segment="s", step=1, seconds=7200.0, devices=4)
    Ledger(folder.ledger).append(row)
    assert main(["status", str(folder.path)]) == 0
    assert re.search(r"spent: 8 core-hours, 0\.\d+ USD", capsys.readouterr().out)


def test_without_slurm_the_run_folder_shows_what_is_done(folder, capsys):
    submitted(folder, job="5", chain="5", part="older")
    submitted(folder)
    folder.write_record({"stage": "train/lora", "started": "2026-01-01T00:00:01+00:00"})
    folder.write_record({"stage": "correct", "started": "2025-12-31T23:59:59+00:00"})
    assert main(["status", str(folder.path), "nothing"]) == 0
    told = capsys.readouterr()
    assert re.search(r"^ +7 +train +unknown +- +1 of 2 ", told.out, re.MULTILINE)
    assert "older" not in told.out
    assert re.search(r"squeue: .*\bPATH\b", told.err)
    assert re.search(r"sacct: .*\bPATH\b", told.err)
    assert re.search(r"nothing: .*\bconfig\.yaml\b", told.err)
    assert main(["cancel", str(folder.path)]) == EXIT_USER
    assert re.search(r"squeue: .*\bPATH\b", capsys.readouterr().err)


def test_logs_are_printed_in_the_order_of_the_chain(folder, capsys):
    assert main(["logs", str(folder.path)]) == EXIT_USER
    submitted(folder)
    submitted(folder, job="8", part="result", log=str(folder.path / "slurm-8.out"))
    submitted(folder, job="9", part="later", log=str(folder.path / "slurm-9.out"))
    (folder.path / "slurm-8.out").write_text("two\n")
    (folder.path / "slurm-7.out").write_text("one\n")
    capsys.readouterr()
    assert main(["logs", str(folder.path)]) == 0
    said = "==> train, job 7 <==\none\n==> result, job 8 <==\ntwo\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    "words", [["status"], ["status", "nothing"], ["logs"], ["cancel", "a", "b"]]
)
def test_a_run_folder_is_asked_for(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == EXIT_USER
    assert "run folder" in capsys.readouterr().err
