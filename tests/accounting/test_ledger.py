"""The ledger over crashes, requeues and torn lines."""

import json
from pathlib import Path

import pytest
from errors import user_error

from hpc_llm.accounting import Ledger, LedgerRow


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


def steps(ledger: Ledger, segment: str, numbers: range, **change) -> None:
    for step in numbers:
        row = {"run": "r", "stage": "lora", "segment": segment, "step": step, "tokens": 100}
        row |= {"seconds": 36.0, "flops": 10**15, "hardware_flops": 2 * 10**15, "devices": 8}
        ledger.append(LedgerRow(**(row | change)))


def resume(ledger: Ledger, segment: str, step: int) -> None:
    row = LedgerRow(run="r", stage="lora", segment=segment, step=step, reason="resume", seconds=5.0)
    ledger.append(row)


def test_an_empty_ledger_has_spent_nothing(ledger: Ledger) -> None:
    assert ledger.totals().spent.flops == 0
    assert ledger.totals().goodput is None


def test_without_a_stop_everything_is_useful(ledger: Ledger) -> None:
    steps(ledger, "a", range(10, 60, 10))
    totals = ledger.totals("lora")
    assert totals.spent == totals.useful
    assert (totals.spent.flops, totals.spent.hardware_flops) == (5 * 10**15, 10 * 10**15)
    assert totals.spent.tokens == 500
    assert totals.spent.device_hours == pytest.approx(5 * 8 * 36 / 3600)
    assert totals.goodput == 1


def test_work_beyond_the_checkpoint_is_spent_and_lost(ledger: Ledger) -> None:
    steps(ledger, "a", range(10, 60, 10))
    resume(ledger, "b", 30)
    steps(ledger, "b", range(40, 70, 10))
    totals = ledger.totals()
    assert totals.spent.tokens == 800
    assert totals.useful.tokens == 600
    assert totals.spent.seconds == 8 * 36 + 5
    assert totals.goodput is not None
    assert 0 < totals.goodput < 1


def test_two_resumptions_from_one_checkpoint_count_its_work_once(ledger: Ledger) -> None:
    steps(ledger, "a", range(10, 60, 10))
    for segment in ("b", "c"):
        resume(ledger, segment, 20)
        steps(ledger, segment, range(30, 60, 10))
    assert ledger.totals().useful.tokens == 500
    assert ledger.totals().spent.tokens == 1100


def test_a_segment_from_scratch_loses_all_before_it(ledger: Ledger) -> None:
    steps(ledger, "a", range(10, 60, 10))
    steps(ledger, "b", range(10, 40, 10))
    assert ledger.totals().useful.tokens == 300


def test_other_stages_are_left_alone(ledger: Ledger) -> None:
    steps(ledger, "a", range(10, 60, 10), stage="embeddings")
    steps(ledger, "a", range(10, 60, 10))
    resume(ledger, "b", 0)
    assert ledger.totals("embeddings").useful.tokens == 500
    assert ledger.totals("lora").useful.tokens == 0
    assert ledger.totals().spent.tokens == 1000


def test_a_row_written_twice_counts_once(ledger: Ledger) -> None:
    steps(ledger, "a", range(10, 40, 10))
    steps(ledger, "a", range(10, 40, 10))
    assert ledger.totals().spent.tokens == 300


@pytest.mark.parametrize("cut", [1, 20, 80])
def test_a_torn_last_line_costs_only_itself(ledger: Ledger, cut: int) -> None:
    steps(ledger, "a", range(10, 60, 10))
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole[:-cut])
    torn = 0 if cut == 1 else 1  # without the newline alone, the line is still whole
    assert len(ledger.rows()) == 5 - torn
    steps(ledger, "b", range(10, 40, 10))
    assert ledger.totals().useful.tokens == 300
    assert len(ledger.rows()) == 8 - torn


def test_a_newer_line_with_unknown_fields_is_read(ledger: Ledger) -> None:
    ledger.path.write_text(
        '{"run": "r", "stage": "lora", "segment": "a", "step": 1, "tokens": 7, "joules": 3}\n'
        '{"something": "else"}\n'
    )
    assert ledger.totals().spent.tokens == 7


def test_counts_are_not_negative() -> None:
    with user_error("ledger: tokens", value=-1):
        LedgerRow(run="r", stage="lora", segment="a", step=1, tokens=-1)


def good_line(**change) -> str:
    row = {"run": "r", "stage": "lora", "segment": "a", "step": 1, "devices": 8, "seconds": 36.0}
    return json.dumps(row | {"tokens": 100} | change) + "\n"


@pytest.mark.parametrize(
    "damaged",
    [
        good_line()[:40] + "\n",
        good_line(devices="32"),
        good_line(seconds=float("nan")),
        good_line(seconds=float("inf")),
        good_line(flops=1.5),
        good_line(tokens=True),
        good_line(tokens=-1),
        good_line(run=None),
        "[1, 2]\n",
        "\x00\x00\x00\n",
    ],
)
def test_a_damaged_line_in_the_middle_is_skipped_and_counted(ledger: Ledger, damaged: str) -> None:
    ledger.path.write_text(good_line() + damaged + good_line(step=2))
    assert [row.step for row in ledger.rows()] == [1, 2]
    assert ledger.totals().spent.tokens == 200
    assert ledger.damaged() == 1


def test_whole_lines_are_no_damage(ledger: Ledger) -> None:
    other = '{"something": "else"}\n\n'
    ledger.path.write_text(good_line(joules=3, seconds=36) + other + good_line(job=None))
    assert ledger.damaged() == 0
    assert Ledger(ledger.path.with_name("none.jsonl")).damaged() == 0
