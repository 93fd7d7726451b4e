"""The bill of a run folder, by hand."""

from pathlib import Path

import pytest

from hpc_llm.accounting import Ledger, LedgerRow, ledger_report, run_bill
from hpc_llm.config import compose, typed, write
from hpc_llm.errors import UserError
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
    bill = run_bill(folder.path)
    assert bill.totals.spent.device_hours == 32
    assert bill.hardware is not None
    assert bill.money(bill.hardware.price_high) == pytest.approx(96)
    assert bill.energy_kwh == pytest.approx(32 * 0.4)
    hours = 2 * FLOPS / (312e12 * 0.515 * 0.8) / 3600
    assert bill.projected_ratio == pytest.approx(hours / 32)


def test_the_report_has_a_line_for_each_run(folder: RunFolder) -> None:
    report = ledger_report([folder.path, folder.path]).splitlines()
    assert report[1] == report[2]
    for told in ("25.6-96.0", "100.0%", "12.8  model"):
        assert told in report[1]
    assert report[1].split()[6] == "n/a"  # no Slurm job


def test_without_a_configuration_the_ledger_still_counts(folder: RunFolder) -> None:
    folder.config.unlink()
    assert run_bill(folder.path).totals.spent.flops == 2 * FLOPS
    assert "n/a" in ledger_report([folder.path])


def test_a_configuration_of_another_version_leaves_the_counts(folder: RunFolder) -> None:
    folder.config.write_text(folder.config.read_text().replace("  price_date:", "  price_day:"))
    assert run_bill(folder.path).totals.spent.flops == 2 * FLOPS
    assert "n/a" in ledger_report([folder.path])


def test_a_folder_that_has_not_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ledger\.jsonl"):
        ledger_report([tmp_path])
