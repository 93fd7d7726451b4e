"""Locales whose letters are not UTF-8, as on older clusters: built here and used for real."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import TINY

Run = Callable[..., tuple[int, bytes, bytes]]
LOCALES = {"ru_RU": "KOI8-R", "en_US": "ISO-8859-1"}
PLAN = ("plan", "model=solar-10.7b", "cluster=a100_4x8")


@pytest.fixture(scope="module", params=LOCALES)
def locale(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a new locale, named LANGUAGE.CHARSET."""
    charset = LOCALES[request.param]
    folder: Path = tmp_path_factory.mktemp("locales") / f"{request.param}.{charset}"
    if shutil.which("localedef") is None:
        pytest.skip("needs localedef")
    command = ["localedef", "-i", request.param, "-f", charset, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not folder.is_dir():
        pytest.skip(f"needs the Debian package locales: {done.stderr[:200]}")
    return folder


@pytest.fixture
def run(locale: Path, tmp_path: Path) -> Run:
    """Run `hpc-llm` under the locale, words encoded in it; return code, stdout and stderr."""
    charset = locale.name.partition(".")[2]
    dropped = ("PYTHONUTF8", "PYTHONIOENCODING", "LC_CTYPE", "LANG")
    variables = {name: value for name, value in os.environ.items() if name not in dropped}
    variables |= {"LOCPATH": str(locale.parent), "LC_ALL": locale.name, "PYTHONPATH": os.getcwd()}

    def start(*words: str) -> tuple[int, bytes, bytes]:
        encoded = [word.encode(charset) for word in words]
        command = [os.fsencode(sys.executable), b"-P", b"-m", b"hpc_llm.app", *encoded]
        done = subprocess.run(
            command, capture_output=True, cwd=tmp_path, env=variables, check=False
        )
        assert b"Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return start


def test_the_locale_is_in_use_and_its_output_is_right(run: Run, locale: Path) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert out.startswith(b"hpc-llm VERB")
    code, out, _ = run(*PLAN)
    assert code == 0
    assert b"10,737,815,552 parameters" in out
    assert b"\\u" not in out  # a letter of another alphabet
    assert run("status")[0] == 2


def test_a_name_in_letters_of_the_locale_is_kept(run: Run, locale: Path, tmp_path: Path) -> None:
    charset = locale.name.partition(".")[2]
    name = "имя" if charset == "KOI8-R" else "café"
    words = [*TINY, f"run={name}", f"runs_dir={tmp_path}/runs", "tracking=off"]
    code, _, said = run("corpus", *words)
    assert (code, said.count(b"\n")) == (0, 1), said
    assert name.encode(charset) in os.listdir(os.fsencode(tmp_path / "runs"))
    code, out, _ = run("status", f"{tmp_path}/runs/{name}")
    assert code == 0
    assert name.encode(charset) in out
