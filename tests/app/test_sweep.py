"""Sweeps on this machine: the trials of `-m`, their table and their plot."""

import json
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import pytest
import yaml
from tiny import TINY, adapt, hpc_llm, records, summary

from hpc_llm.app.main import main
from hpc_llm.errors import EXIT_REQUEUE, EXIT_USER

WORDS = ("-m", "tracking=off", "run=grid", "cache=true")


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A sweep of four; the sample has too little text for every second trial's vocabulary."""
    runs = tmp_path_factory.mktemp("runs")
    swept = ("stages.lora.rank=4,8", "tokenizer.vocab_size=512,90000")
    return runs / "grid", adapt(runs, *WORDS, *swept, check=False)


def table(folder, capsys):
    """Return the rows of the table, by trial, and all that was said."""
    assert main(["sweep", str(folder)]) == 0
    said = capsys.readouterr().out
    return {int(found[1]): found[0] for found in re.finditer(r"^ +(\d+) {2,}.*$", said, re.M)}, said


def test_a_failed_trial_stops_no_other(grid):
    folder, done = grid
    assert done.returncode == EXIT_USER  # that of the first that failed
    listed = json.loads((folder / "sweep.json").read_text())
    assert [trial["values"] for trial in listed["trials"]] == [
        {"stages.lora.rank": rank, "tokenizer.vocab_size": size}
        for rank in ("4", "8")
        for size in ("512", "90000")
    ]
    for number, trial in enumerate(listed["trials"]):
        config = yaml.safe_load((folder / str(number) / "config.yaml").read_text())
        assert config["stages"]["lora"]["rank"] == int(trial["values"]["stages.lora.rank"])
        assert (folder / str(number)).samefile(trial["folder"])
        assert config["tracking"]["group"] == listed["group"]
    assert listed["group"].startswith("grid-")
    for number in (0, 2):
        assert records(folder / str(number))[-1] == "report"
    for number in (1, 3):
        assert records(folder / str(number)) == ["corpus", "train/pretrain"]


def test_the_table_shows_the_measures_of_each_trial_and_which_failed(grid, capsys):
    folder, _ = grid
    rows, said = table(folder, capsys)
    assert sorted(rows) == [0, 1, 2, 3]
    figures = {number: summary(folder / str(number)) for number in (0, 2)}
    for number, known in figures.items():
        target, source = known["target_bpb"]["corrected"], known["source_bpb"]["corrected"]
        forgotten = known["measures"]["forgetting/source"]["corrected"]["value"]
        phi = known["phi"]["value"]
        assert re.search(
            rf"512 +done(, best)? +corrected +{target:.3f} \([^)]+\) +{source:.3f} \([^)]+\) "
            rf"+{forgotten:.3f} \([^)]+\) +{phi:.2f} ",
            rows[number],
        )
        assert "USD" in rows[number]
    for number in (1, 3):
        assert re.search(r"90000 +failed\b.* tokenizer( +n/a){5} ", rows[number])
        assert re.search(rf"trial {number}: exit code 2\b.*hpc-llm adapt --config", said)
    best = min(figures, key=lambda number: figures[number]["target_bpb"]["corrected"])
    assert [number for number, row in rows.items() if "best" in row] == [best]
    assert f"model {folder}/{best}/model\n" in said
    assert "4 trials: 2 done, 2 failed; spent" in said


def test_status_of_a_sweep_is_its_table_and_a_trial_is_a_run(grid, capsys):
    folder, _ = grid
    assert main(["status", str(folder)]) == 0
    assert len(re.findall(r"\bfailed\b.* tokenizer ", capsys.readouterr().out)) == 2
    assert main(["status", str(folder / "0")]) == 0
    assert "train/lora: step 12 of 12" in capsys.readouterr().out
    assert main(["logs", str(folder)]) == EXIT_USER
    assert re.search(rf"{folder}: .*{folder}/0", capsys.readouterr().err)


def test_the_plot_has_a_curve_for_each_second_value_and_crosses(grid, capsys):
    folder, _ = grid
    table(folder, capsys)
    root = ET.parse(folder / "sweep.svg").getroot()
    texts = {"".join(text.itertext()).strip() for text in root.iter() if text.tag.endswith("text")}
    assert {"rank", "failed", "vocab_size=512", "vocab_size=90000", "bpb/target"} <= texts
    before = (folder / "sweep.svg").read_bytes()
    table(folder, capsys)
    assert (folder / "sweep.svg").read_bytes() == before


def test_what_is_done_is_kept_and_new_values_get_new_numbers(tmp_path):
    words = ("corpus", *TINY, f"runs_dir={tmp_path}", *WORDS)
    hpc_llm(*words, "corpus.max_documents=40,50")
    said = hpc_llm(*words, "corpus.max_documents=50,60").stderr
    assert re.findall(r"trial (\d): corpus.max_documents=(\d+) ->", said) == [
        ("1", "50"),
        ("2", "60"),
    ]
    assert f"{tmp_path}/grid/1: nothing" in said
    for number, documents in enumerate((40, 50, 60)):
        config = yaml.safe_load((tmp_path / f"grid/{number}/config.yaml").read_text())
        assert config["corpus"]["max_documents"] == documents
    other = hpc_llm(*words, "seed=1,2", check=False)
    assert other.returncode == EXIT_USER
    assert re.search(r"/grid: .*\bcorpus\.max_documents\b.*\bseed\b.*run=NAME", other.stderr)


def test_a_sweep_that_is_asked_to_stop_resumes_later(tmp_path, capsys):
    words = ["adapt", *TINY, f"runs_dir={tmp_path}", *WORDS, "stages.lora.rank=4,8"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hpc_llm.app", *words], stderr=subprocess.PIPE, text=True
    )
    events, deadline = tmp_path / "grid/0/events.jsonl", time.monotonic() + 300
    while not (events.exists() and "train/loss" in events.read_text()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    rows, _ = table(tmp_path / "grid", capsys)
    assert re.search(r"running (train/pretrain|tokenizer)", rows[0])
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate(timeout=120)
    assert process.returncode == EXIT_REQUEUE, said
    rows, _ = table(tmp_path / "grid", capsys)
    assert "stopped at" in rows[0]
    assert "not started" in rows[1]
    assert not (tmp_path / "grid/1/record.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stages.lora.rank=4,0"], "trial stages.lora.rank=0: stages.lora.rank=0: "),
        (["train.batch_tokens=1024,1000"], "trial train.batch_tokens=1000: train.batch_tokens"),
        (["run=a,b"], "hpc-llm: run: "),
        (["launch=local,slurm"], "hpc-llm: launch: "),
        (["launch.throttle=2", "seed=1,2"], "launch.throttle=2: .*launch=slurm"),
        (["hydra/launcher=joblib", "seed=1,2"], "hydra/launcher=joblib: .*submitit_slurm"),
    ],
)
def test_one_wrong_trial_refuses_the_sweep(words, said, tmp_path, capsys):
    runs = f"runs_dir={tmp_path / 'runs'}"
    assert main(["adapt", *TINY, "-m", runs, *words]) == EXIT_USER
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


def test_a_single_run_is_no_sweep_nor_the_other_way_round(tmp_path, capsys):
    (tmp_path / "one").mkdir()
    (tmp_path / "one/config.yaml").touch()
    words = ["adapt", f"runs_dir={tmp_path}", "run=one", "-m", "seed=1,2"]
    assert main(words) == EXIT_USER
    assert re.search(rf"{tmp_path}/one: .*run=NAME", capsys.readouterr().err)
    for word in ([], [str(tmp_path / "one")], ["a", "b"]):
        assert main(["sweep", *word]) == EXIT_USER
        assert "sweep" in capsys.readouterr().err


def test_several_ranks_do_not_sweep(monkeypatch, capsys):
    for key, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("MASTER_PORT", "12345")
    assert main(["adapt", "-m", "seed=1,2"]) == EXIT_USER
    assert re.search(r"hpc-llm: -m: .*launch=slurm", capsys.readouterr().err)


def test_a_launcher_of_hydra_is_refused(capsys, tmp_path):
    words = ["hydra/launcher=submitit_slurm", f"runs_dir={tmp_path / 'runs'}"]
    for verb in ("adapt", "plan"):
        assert main([verb, *words]) == EXIT_USER
        assert "launch=slurm" in capsys.readouterr().err
    assert main(["adapt", "hydra.run.dir=x"]) == EXIT_USER
    assert "runs_dir=" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
