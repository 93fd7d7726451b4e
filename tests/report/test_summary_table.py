import io

import pytest
from made_up_run import SUMMARY, write_run

from hpc_llm.report import print_summary
from hpc_llm.report.text import change, clock, compact, interval, money, scientific
from hpc_llm.rundir import RunFolder, write_json


def printed(folder):
    stream = io.StringIO()
    print_summary(folder, stream)
    return stream.getvalue()


def test_a_pipe_gets_a_plain_table_of_80_columns(tmp_path):
    folder = write_run(RunFolder(tmp_path / ("long" * 20)))
    folder.model.mkdir()
    text = printed(folder)
    lines = text.splitlines()
    assert "\x1b" not in text
    assert max(len(line) for line in lines[:-1]) <= 80
    assert lines[-1] == f"  model   {folder.model}"  # whole, so that it can be copied
    rows = [line.split() for line in lines if "corrected" in line]
    assert [row[0] for row in rows] == ["bpb/target", "bpb/source", "forgetting/source"]
    assert rows[0][1:] == ["corrected", "1.890", "(1.765", "to", "2.015)", "−35.7", "%"]
    assert rows[2][1:] == ["corrected", "0.111", "(0.081", "to", "0.141)"]
    assert any("4.81 → 1.93" in line for line in lines)
    assert any(line.split()[-1] == "×0.401" for line in lines if "same text" in line)
    assert any("0.67 (best factor: 0.55 to 0.80)" in line for line in lines)
    assert any("train 83 %, evaluate 16 %" in line for line in lines)


def test_the_name_of_a_run_is_not_read_as_markup(tmp_path):
    folder = RunFolder(tmp_path)
    write_json(folder.summary, SUMMARY | {"run": "a[red]b"})
    assert "a[red]b" in printed(folder)


def test_a_summary_of_nulls_prints(tmp_path):
    folder = RunFolder(tmp_path / "half")
    write_json(folder.summary, dict.fromkeys(SUMMARY))
    text = printed(folder)
    assert "half" in text  # the folder's name stands in for the run's
    assert text.count("n/a") == 10  # fertility has three


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (scientific(3.71e14), "3.71×10¹⁴"),
        (scientific(4.29e-6), "4.29×10⁻⁶"),
        (scientific(0.25), "0.25"),
        (scientific(1234.5), "1,234"),
        (scientific(0), "0"),
        (compact(12_345_678), "12.3M"),
        (compact(999), "999"),
        (clock(3671.6), "1:01:12"),
        (clock(0), "0:00:00"),
        (change(1.5, 2.0), "−25.0\xa0%"),
        (change(1.5, None), "n/a"),
        (interval({"value": 0.5, "low": None, "high": None}), "0.50"),
        (money({"amount": 1234.5, "currency": "USD"}), "1,234.50 USD"),
        (money({"amount": None, "currency": "USD"}), "n/a"),
    ],
)
def test_numbers_read_well(text, expected):
    assert text == expected


def test_small_amounts_are_not_rounded_away():
    from hpc_llm.report.text import money

    assert money({"amount": 0.00474, "currency": "USD"}) == "0.0047 USD"
    assert money({"amount": 1234.5, "currency": "EUR"}) == "1,234.50 EUR"
    assert money({"amount": None, "currency": "USD"}) == "n/a"
