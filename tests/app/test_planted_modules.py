"""Modules planted in the folder of a run, or in a checkpoint, are never imported."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from errors import user_error

from hpc_llm.app.heap import VARIABLE
from hpc_llm.distributed import child_environment, python_module
from hpc_llm.launch import run_ranks
from hpc_llm.training.checkpoints.universal import convert

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ("hpc_llm", "hydra", "torch", "deepspeed", "omegaconf", "numpy", "json", "signal", "runpy")
PLANTED = "import sys\nopen({mark!r}, 'a').write(__name__ + ' ')\nsys.exit(99)\n"


def plant(folder: Path, mark: Path) -> None:
    for name in NAMES:
        (folder / f"{name}.py").write_text(PLANTED.format(mark=str(mark)))


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that planted modules write to; they lie in the current folder."""
    (tmp_path / "here").mkdir()
    plant(tmp_path / "here", tmp_path / "mark")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep)  # two empty entries: the current folder, twice
    return tmp_path / "mark"


def command(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the console script as a user does: its own start does not look at the folder."""
    program = [str(Path(sys.executable).parent / "hpc-llm"), *words]
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
    return subprocess.run(program, env=own, capture_output=True, text=True, check=False)


def ranks(_folder: Path) -> int:
    return run_ranks(["--version"], 2, os.environ)


def sweep(folder: Path) -> int:
    words = ("experiment=example", f"runs_dir={folder}/runs", "cache=false", "run=s")
    return command("corpus", "-m", *words, "corpus.max_documents=60,70").returncode


def preflight(folder: Path) -> int:
    words = (f"runs_dir={folder}/runs", "launch.processes=2", "preflight.seconds=0.1")
    words += ("preflight.message_mib=1", "preflight.slow_factor=50")
    return command("preflight", *words).returncode


def restart(_folder: Path) -> int:
    """The restart for the heap: the same words again, without `-P`."""
    text = "from hpc_llm.app.heap import join_freed_blocks; import sys\n"
    text += "sys.argv[0] = 'hpc-llm'; join_freed_blocks(); import runpy, signal, numpy"
    known = {k: v for k, v in os.environ.items() if k != VARIABLE}
    arguments = [sys.executable, "-c", text]
    start = f"import sys\nsys.path.remove('')\nsys.orig_argv = {arguments!r}\n{text}"
    safe = {**known, "PYTHONPATH": str(REPOSITORY), "PATH": ""}
    return subprocess.run([sys.executable, "-c", start], env=safe, check=False).returncode


def prebuild(_folder: Path) -> int:
    makefile = (REPOSITORY / "Makefile").read_text()
    (words,) = re.findall(r"\$\(BIN\)/python (.* )hpc_llm\.training\.prebuild", makefile)
    code = [sys.executable, *words.split(), "hpc_llm.app", "--version"]
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(code, env=own, check=False).returncode


@pytest.mark.parametrize("way", [ranks, sweep, preflight, restart, prebuild])
def test_the_current_folder_is_not_searched(way, mark: Path, tmp_path: Path) -> None:
    code = way(tmp_path)
    assert not mark.exists(), mark.read_text()
    assert code == 0


def test_a_checkpoint_is_not_searched(mark: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "step-00000003"
    (checkpoint / "deepspeed").mkdir(parents=True)
    for folder in (checkpoint, checkpoint / "deepspeed"):
        plant(folder, mark)
    (checkpoint / "latest_universal").symlink_to(tmp_path / "target")
    with user_error(str(checkpoint)) as refused:  # it has no shards
        convert(checkpoint)
    assert "SystemExit" not in refused.value.rule
    assert not mark.exists(), mark.read_text()
    assert not (tmp_path / "target").exists()


def test_a_child_finds_the_package_of_its_parent_and_no_relative_folder(tmp_path: Path) -> None:
    given = {"PYTHONPATH": os.pathsep.join(("", "lib", "/opt/lib", "")), "KEPT": "1"}
    variables = child_environment(given)
    folders = variables["PYTHONPATH"].split(os.pathsep)
    assert folders[-2:] == [os.path.abspath("lib"), "/opt/lib"]
    assert all(map(os.path.isabs, folders))
    assert variables["KEPT"] == variables["PYTHONSAFEPATH"] == "1"
    text = [*python_module("hpc_llm.app"), "--version"]
    # -S: no site-packages, so that only the given path leads to the package
    words = [sys.executable, "-P", "-S", "-c", "import hpc_llm; print(hpc_llm.__file__)"]
    done = subprocess.run(words, env=variables, cwd=tmp_path, capture_output=True, check=True)
    assert Path(done.stdout.decode().strip()) == REPOSITORY / "hpc_llm/__init__.py"
    assert text[:3] == [sys.executable, "-P", "-m"]


def test_every_start_of_a_module_in_the_project_is_safe() -> None:
    listed = ["git", "ls-files", "hpc_llm", "slurm", "Makefile"]
    files = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in files.stdout.split():
        text = (REPOSITORY / name).read_text(encoding="utf-8", errors="replace")
        found = re.findall(r"python (?!-P)[^`\n]*-m hpc_llm[\w.]*", text)
        assert [one for one in found if not one.endswith("hpc_llm.app")] == [], name
