"""YAML that expands without end, wherever a configuration of others is read."""

from pathlib import Path

import pytest
from errors import user_error

from hpc_llm import config
from hpc_llm.accounting import cost_report
from hpc_llm.accounting.ledger import Ledger, LedgerRow
from hpc_llm.report import write_report
from hpc_llm.rundir import RunFolder, check_yaml


def laughs(levels: int = 30) -> str:
    lines = ["a0: &a0 [lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int = 30) -> str:
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, levels)]
    return "\n".join(lines)


BOMBS = {
    "aliases": laughs(),
    "merges": merges(),
    "itself": "a: &a [*a]",
    "deep": "a: " + "[" * 5_000,
    "deep but whole": "a: " + "[" * 400 + "]" * 400,
    "deep blocks": "\n".join("  " * n + "- a:" for n in range(150)),
    "large": "a: " + "x" * 5 * 2**20,
}


@pytest.fixture(params=BOMBS)
def bomb(request, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(BOMBS[request.param])
    return path


def test_a_configuration_that_expands_without_end_is_refused(bomb: Path, default_config) -> None:
    with user_error(str(bomb)):
        check_yaml(bomb)
    with user_error(str(bomb)):
        config.load(bomb)
    with user_error(str(bomb)):
        config.differences(bomb, default_config)
    with user_error(str(bomb)):
        write_report(RunFolder(bomb.parent))


def test_the_cost_is_known_without_the_configuration(bomb: Path) -> None:
    row = LedgerRow(run="a", stage="lora", segment="s", step=1, seconds=7200.0, devices=4)
    Ledger(bomb.parent / "ledger.jsonl").append(row)
    assert cost_report(bomb.parent, ask_slurm=False).totals.spent.device_hours == 8


def test_so_is_one_of_a_plugin(bomb: Path, tmp_path: Path, monkeypatch) -> None:
    place = tmp_path / "plugin/conf/model"
    place.mkdir(parents=True)
    (place / "mine.yaml").write_text(bomb.read_text())
    monkeypatch.setenv("HPC_LLM_PLUGINS", str(tmp_path / "plugin"))
    with user_error(str(place / "mine.yaml")):
        config.compose(["model=mine"])


def test_anchors_of_people_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "base: &base {a: 1, b: [1, 2]}\n" + "\n".join(f"x{n}: *base" for n in range(99))
    )
    check_yaml(path)
    check_yaml(tmp_path / "none.yaml")
    path.write_text("{")  # its reader reports it
    check_yaml(path)
