"""What all tests share: groups, fixtures and the list of faults survived."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

# Models of these tests are tiny: a second thread costs more than it does, and two workers of pytest
# share two cores. Read when torch is imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Programs keep ignoring what they were started with; nohup and background jobs ignore these.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share what is slow to make in one worker: a file's, and all on Slurm."""
    for item in items:
        folder = item.path.parent.name
        if folder != "training":
            group = folder if folder == "slurm" else str(item.path)
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository.

    Without it the test is skipped; under HPC_LLM_REQUIRE_SHARED=1, as in CI, it fails.
    """
    folder = Path(__file__).resolve().parents[2] / "shared"
    if folder.is_dir():
        return folder
    if os.environ.get("HPC_LLM_REQUIRE_SHARED") == "1":
        pytest.fail(f"HPC_LLM_REQUIRE_SHARED=1, and there is no {folder}")
    pytest.skip(f"needs real data in {folder}")


@pytest.fixture(scope="session")
def default_config():
    """The configuration as `conf/` gives it, with the example's model and text."""
    from hpc_llm import config

    return config.typed(config.compose(["experiment=example"]))


@pytest.fixture(autouse=True)
def _environment():
    """Put back the environment after each test: starting a process group writes into it."""
    saved = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(saved)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List the faults that a training run has survived."""
    reports = terminalreporter.stats.get("passed", [])
    nodes = [r.nodeid.removesuffix("@slurm") for r in reports if "test_survival.py::" in r.nodeid]
    tests = [node.split("::")[1] for node in nodes]
    if tests:
        terminalreporter.section("faults survived: the same weights, bit for bit")
    for name in tests:
        found = re.fullmatch(r"test_survives\[(.*)\]", name)
        words = name.removeprefix("test_survives_").removeprefix("test_").replace("_", " ")
        terminalreporter.write_line(f"  {found[1] if found else words}")
