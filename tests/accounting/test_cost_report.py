"""The cost report of a run folder, computed by hand."""

import shutil
from pathlib import Path

import pytest
from errors import user_error

from hpc_llm.accounting import Ledger, LedgerRow, cost_report, cost_table
from hpc_llm.config import compose, typed, write
from hpc_llm.rundir import RunFolder

FLOPS = 10**18


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    overrides = ["model=solar-10.7b", "cluster=a100_4x8", "train.precision=bf16"]
    write(typed(compose(overrides)), run.config)
    for step in (10, 20):
        Ledger(run.ledger).append(
            LedgerRow(
                run="run",
                stage="lora",
                segment="a",
                step=step,
                tokens=1000,
                seconds=1800.0,
                flops=FLOPS,
                hardware_flops=FLOPS,
                devices=32,
            )
        )
    return run


def test_money_energy_and_the_projections_error(folder: RunFolder) -> None:
    report = cost_report(folder.path)
    assert report.totals.spent.device_hours == 32
    assert report.hardware is not None
    assert report.money(report.hardware.price_high) == pytest.approx(96)
    assert report.energy_kwh == pytest.approx(32 * 0.4)
    hours = 2 * FLOPS / (312e12 * 0.515 * 0.8) / 3600
    assert report.projected_ratio == pytest.approx(hours / 32)


def test_the_report_has_a_line_for_each_run(folder: RunFolder) -> None:
    report = cost_table([folder.path, folder.path]).text.splitlines()
    assert report[1] == report[2]
    for told in ("25.6-96.0", "100.0%", "12.8  model"):
        assert told in report[1]
    assert report[1].split()[6] == "n/a"  # no Slurm job


def test_without_a_configuration_the_ledger_still_counts(folder: RunFolder) -> None:
    folder.config.unlink()
    assert cost_report(folder.path).totals.spent.flops == 2 * FLOPS
    report = cost_table([folder.path])
    assert "n/a" in report.text
    assert "config.yaml: is missing" in report.remarks[0]


def test_a_configuration_of_another_version_leaves_the_counts(folder: RunFolder) -> None:
    folder.config.write_text(folder.config.read_text().replace("  price_date:", "  price_day:"))
    assert cost_report(folder.path).totals.spent.flops == 2 * FLOPS
    assert "n/a" in cost_table([folder.path]).text


def test_a_folder_that_has_not_trained_is_refused(tmp_path: Path) -> None:
    with user_error(str(tmp_path), "ledger.jsonl"):
        cost_table([tmp_path])
    with user_error("runs/a, runs/b", "ledger.jsonl"):
        cost_table([Path("runs/a"), Path("runs/b")])


def test_a_folder_without_a_ledger_is_skipped(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "README").write_text("no run\n")
    (tmp_path / "new").mkdir()
    paths = [tmp_path / name for name in ("README", "new", "run", "absent")]
    report = cost_table(paths)
    assert report.text.splitlines()[1].startswith(str(folder.path))
    assert len(report.remarks) == 3
    assert all("ledger.jsonl" in remark for remark in report.remarks)


BROKEN = (b"", b"{", b"\xff\xfe", b"[1, 2]\n", b"hardware: null\nbudget: 3\n")


@pytest.mark.parametrize("content", BROKEN, ids=str)
def test_a_broken_configuration_leaves_the_counts_and_is_reported(
    folder: RunFolder, content: bytes
) -> None:
    folder.config.write_bytes(content)
    assert cost_report(folder.path).totals.spent.flops == 2 * FLOPS
    (remark,) = cost_table([folder.path]).remarks
    assert "config.yaml" in remark
    assert "\n" not in remark


def test_a_configuration_with_invalid_values_is_reported(folder: RunFolder) -> None:
    text = folder.config.read_text()
    folder.config.write_text(text.replace("price_low: 0.8", "price_low: cheap"))
    assert "config.yaml" in cost_table([folder.path]).remarks[0]
    folder.config.write_text(text.replace("price_low: 0.8", "price_low: -1"))
    assert "config.yaml" in cost_table([folder.path]).remarks[0]


def test_damaged_lines_and_an_empty_ledger_are_reported(folder: RunFolder) -> None:
    with folder.ledger.open("a") as file:
        file.write('{"run": \n{"run": \n')
    (remark,) = cost_table([folder.path]).remarks
    assert "2 damaged lines" in remark
    folder.ledger.write_text("")
    assert "empty" in cost_table([folder.path]).remarks[0]


def test_several_runs_have_a_sum(folder: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "other")
    shutil.copytree(folder.path, other.path)
    resumed = LedgerRow(run="r", stage="lora", segment="b", step=10, reason="resume")
    Ledger(other.ledger).append(resumed)  # the second half is lost
    lines = cost_table([folder.path, other.path]).text.splitlines()
    assert lines[3].split()[:3] == ["sum", "4,000", "4e+18"]
    for told in ("3e+18", "64.0", "75.0%", "51.2-192 ", "USD", "25.6  model"):
        assert told in lines[3]
    assert not cost_table([folder.path]).text.splitlines()[2].startswith("sum")
    other.config.write_text(other.config.read_text().replace("currency: USD", "currency: EUR"))
    mixed = cost_table([folder.path, other.path]).text.splitlines()[3]
    assert "51.2" not in mixed  # two currencies do not add up
    assert "64.0" in mixed
