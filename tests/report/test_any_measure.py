"""A measure that only the evaluation files know is shown by every view; older runs are read too."""

import io
import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from errors import user_error
from made_up_run import (
    BPB,
    MEASURES,
    POINTS,
    RESULTS,
    SUMMARY,
    measure,
    write_evaluations,
    write_record,
    write_run,
)
from wandb_file import payloads

from hpc_llm.app.sweep_table import print_sweep
from hpc_llm.distributed import Ranks
from hpc_llm.pipeline.account import Account
from hpc_llm.report import draw_sweep, print_summary, read_measures, write_report
from hpc_llm.report.measures import change_from, points_of, summary_measures
from hpc_llm.rundir import RunFolder, Sweep, SweepFolder, Trial, read_json, write_json
from hpc_llm.settings import TrackingSettings
from hpc_llm.stages import report
from hpc_llm.tracking import EventLog, WandbView

RIDDLES = "score/riddles"


@pytest.fixture
def riddles(tmp_path):
    """The only trial of a sweep, whose evaluation files have one measure more."""
    folder = write_run(RunFolder(tmp_path / "sweep/0"))
    write_evaluations(folder)
    for number, point in enumerate(POINTS):
        path = folder.path / f"evaluate/{point}.json"
        content = read_json(path)
        score = measure(0.1 + 0.1 * number, 0.05, n=40, unit="share solved", better="higher")
        content["measures"][RIDDLES] = score
        write_json(path, content)
    return folder


def summarised(folder, cfg):
    """Write summary.json as the stage `report` does."""
    write_record(folder, "evaluate/tokenizer", {"tokenizers": {}})
    account = Account(cfg, folder.ledger, Ranks(), "a")
    write_json(
        folder.summary, report.summarise(SimpleNamespace(cfg=cfg, folder=folder, account=account))
    )
    return read_json(folder.summary)


def test_a_made_up_measure_is_in_the_summary_beside_the_old_keys(riddles, default_config):
    summary = summarised(riddles, default_config)
    assert list(summary["measures"]) == [*MEASURES, RIDDLES]
    assert summary["measures"][RIDDLES]["corrected"] == pytest.approx(
        {"value": 0.5, "low": 0.45, "high": 0.55, "n": 40}
        | {"unit": "share solved", "better": "higher"}
    )
    assert {name: summary["measures"][name] for name in MEASURES} == MEASURES
    assert summary["target_bpb"] == BPB["target"]
    assert summary["source_bpb"] == BPB["source"]
    assert summary["token_ratio"] == SUMMARY["token_ratio"]


def test_a_made_up_measure_is_on_page_card_and_console(riddles, default_config):
    summarised(riddles, default_config)
    html = write_report(riddles).read_text(encoding="utf-8")
    assert "<td>score/riddles\nshare solved (higher is better)\nn = 40</td>" in html
    assert "<td>0.500\n0.450 to 0.550\n+400.0\xa0%</td>" in html
    assert "0.10 → 0.50" in html
    plot = (riddles.report.parent / "measure-score.svg").read_text(encoding="utf-8")
    assert "share solved (higher is better)" in plot
    riddles.model.mkdir()
    report.write_model_card(riddles, riddles.model)
    card = (riddles.model / "README.md").read_text(encoding="utf-8")
    assert "| score/riddles | corrected | 0.500 (0.450 to 0.550) | +400.0\xa0% |" in card
    stream = io.StringIO()
    print_summary(riddles, stream)
    rows = [line.split() for line in stream.getvalue().splitlines() if RIDDLES in line]
    assert rows[-1] == [RIDDLES, "corrected", "0.500", "(0.450", "to", "0.550)", "+400.0", "%"]


def test_a_score_at_its_chance_level_is_no_gain():
    base = measure(0.4, 0.05, n=40) | {"chance": 0.25}
    assert change_from(base, measure(0.5, 0.05, n=40) | {"chance": 0.25}).startswith("+25.0")
    assert change_from(base, measure(0.5, 0.05, n=40) | {"chance": 0.45}) == "chance level"
    alone = {"value": 1.0, "low": None, "high": None, "n": 1, "chance": 0.5}
    assert change_from(None, alone) == "chance level"
    assert change_from(base, base) == ""


def test_a_made_up_measure_is_in_the_table_and_the_plot_of_a_sweep(riddles, capsys):
    stages = {name: "0123456789abcdef" for name in ("evaluate/base", "evaluate/corrected")}
    for name in stages:
        write_record(riddles, name, RESULTS["evaluate/base"][1])
    sweep = SweepFolder(riddles.path.parent)
    trial = Trial(number=0, values={"seed": "1"}, overrides=[], stages=stages)
    listing = Sweep(verb="adapt", group="sweep", keys=["seed"], trials=[trial])
    write_json(sweep.listing, asdict(listing))
    rows = print_sweep(sweep)
    said = capsys.readouterr().out
    head = next(line for line in said.splitlines() if "trial" in line).split()
    assert head == ["trial", "seed", "state", "model", *MEASURES, RIDDLES, "phi", "cost"]
    assert "0.500 (0.450 to 0.550)" in said
    assert "bpb/target 1.890 bits per byte, 1.765 to 2.015" in said
    assert RIDDLES in draw_sweep("sweep", ["seed"], rows)


def test_a_made_up_measure_is_in_the_offline_file_of_wandb(riddles, default_config, monkeypatch):
    import wandb
    from wandb.proto import wandb_internal_pb2

    monkeypatch.delenv("WANDB_MODE", raising=False)
    settings = TrackingSettings(
        name="wandb", project="adapt", entity=None, group=None, mode="offline"
    )
    summarised(riddles, default_config)
    view = WandbView(settings, riddles.path, "demo", {})
    log = EventLog(riddles.events)
    log.append("evaluate", stage="corrected", axes={}, metrics={RIDDLES: 0.5})
    log.append("stage", stage="report", axes={}, metrics={"seconds": 1.0})
    view.update()
    view.close()
    wandb.teardown()  # writes the last lines, as the end of a program does
    logged, summary = {}, {}
    for path in (riddles.path / "wandb").glob("offline-run-*/*.wandb"):
        for payload in payloads(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(payload)
            for found, items in ((logged, record.history.item), (summary, record.summary.update)):
                found |= {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
    assert logged[RIDDLES] == 0.5
    ends = {key: summary[f"{RIDDLES}/corrected{key}"] for key in ("", "_low", "_high")}
    assert ends == pytest.approx({"": 0.5, "_low": 0.45, "_high": 0.55})
    assert summary["forgetting/source/lora"] == MEASURES["forgetting/source"]["lora"]["value"]


def test_runs_of_older_versions_are_read(tmp_path):
    path = tmp_path / "base.json"
    old = {"value": 2.0, "low": 1.9, "high": 2.1, "bytes": 1000, "documents": 7}
    write_json(path, {"target": old, "source": None, "line": "x"})
    expected = measure(2.0, 0.1, n=7)
    assert read_measures(path) == {"bpb/target": pytest.approx(expected)}
    older = {key: value for key, value in SUMMARY.items() if key != "measures"}
    found = summary_measures(older)
    assert list(found) == ["bpb/target", "bpb/source"]
    assert found["bpb/source"]["lora"]["value"] == BPB["source"]["lora"]
    run = write_run(RunFolder(tmp_path / "old"))
    write_json(run.summary, {key: v for key, v in older.items() if key != "token_ratio"})
    assert "1.884\n\n−35.9" in write_report(run).read_text(encoding="utf-8")


def test_an_evaluation_without_measures_is_refused(tmp_path):
    path = tmp_path / "lora.json"
    write_json(path, {"line": "x"})
    with user_error(str(path), "hpc-llm evaluate"):
        read_measures(path)


def test_points_are_in_the_order_of_the_recipe_though_a_measure_begins_later():
    late = {"a": {"lora": measure(1, 0)}, **MEASURES, "b": {"extra": measure(1, 0)}}
    assert points_of(late) == [*POINTS, "extra"]
