"""Output never decides how a command ends: readers that go away, full devices, other locales."""

import io
import os
import subprocess
import sys

import pytest

from hpc_llm.app.output import lasting_output

PLAN = ("plan", "model=solar-10.7b", "cluster=a100_4x8")
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0"}


def shell(command, **environment):
    """Run a command line of bash in which `hpc-llm` is this project's."""
    ours = f'hpc-llm() {{ "{sys.executable}" -m hpc_llm.app "$@"; }}; {command}'
    return subprocess.run(
        ["bash", "-c", ours], capture_output=True, env={**os.environ, **environment}, check=False
    )


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("hpc-llm --help | true; exit ${PIPESTATUS[0]}", 0),
        ("hpc-llm plan -m seed=1,2 --cfg job | head -1; exit ${PIPESTATUS[0]}", 0),
        ("hpc-llm --help > /dev/full", 0),
        ("hpc-llm --help >&-", 0),
        ("hpc-llm --help >&- 2>&- <&-", 0),
        ("hpc-llm adpt 2> /dev/full", 2),
        ("hpc-llm adpt 2>&1 | true; exit ${PIPESTATUS[0]}", 2),
        ("hpc-llm plan zero.stage=7 >&- 2>&-", 2),
    ],
)
def test_the_exit_code_is_that_of_the_work(command, code):
    done = shell(command)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("variables", [ASCII, {"PYTHONIOENCODING": "koi8-r"}])
def test_a_locale_without_a_letter_is_printed_in_ascii(variables):
    done = shell(f"hpc-llm {' '.join(PLAN)}", **variables)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"10,737,815,552 parameters" in done.stdout


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("plan run=имя", r"run=\udcd0"),
        ("adapt corpus.target=книги.jsonl", r"corpus.target=\udcd0"),
        ("adapt --config имя.yaml", r"\udcd0"),
        ("diff имя имя", r"\udcd0"),
        ("имя", r"\udcd0"),
    ],
)
def test_a_word_that_the_locale_lacks_is_one_line(tmp_path, words, key):
    done = shell(f"cd {tmp_path}; hpc-llm {words}", PYTHONPATH=os.getcwd(), **ASCII)
    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == 2
    assert line.startswith(f"hpc-llm: {key}")
    assert not list(tmp_path.iterdir())


def test_letters_are_spelt_and_a_failed_stream_is_silent(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with lasting_output():
        print("−73.7 % of 1.22×10¹³ and 10⁻⁷ → φ книга")
    told = stream.buffer.getvalue().decode()
    assert told == "-73.7 % of 1.22x10^13 and 10^-7 -> phi \\u043a\\u043d\\u0438\\u0433\\u0430\n"
    stream.detach().close()
    with lasting_output():
        print("x")
        sys.stdout.flush()
        assert sys.stdout.ended
    assert sys.stdout is stream
