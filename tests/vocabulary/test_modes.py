"""All vocabulary modes: what is the same for each file of the folder, and a plug-in."""

import subprocess
import sys

import pytest
import yaml
from errors import user_error
from tiny import settings, stages

from hpc_llm import config
from hpc_llm.planning import make_plan
from hpc_llm.rundir import conf_files
from hpc_llm.vocabulary.modes import adapted_rows, mode_names, mode_of, mode_settings

PLUGIN = '''
"""transplant.mode=first: the first hundred tokens of the base."""

from hpc_llm.vocabulary.modes import Mode

MODE = Mode(build=lambda base, folder: None, rows=lambda cfg, old: 100)
'''


@pytest.mark.parametrize("name", mode_names())
def test_a_mode_has_its_yaml_and_a_planned_size(name):
    assert f"mode: {name}" in conf_files("transplant")[name].read_text()
    cfg = settings(f"transplant={name}", "model=qwen2.5-0.5b")
    assert cfg.transplant.mode == name
    rows = adapted_rows(cfg, 151_936)
    assert rows > 1000
    assert make_plan(cfg, adapted_rows).vocab_size_new == rows


def test_keep_is_planned_with_the_rows_of_the_base():
    cfg = settings("transplant=keep", "model=qwen2.5-0.5b", "tokenizer.vocab_size=1000")
    plan = make_plan(cfg, adapted_rows)
    assert (plan.vocab_size_old, plan.vocab_size_new) == (151_936, 151_936)
    assert plan.token_cost_ratio == 1


def test_an_unknown_mode_is_refused_with_all_names():
    with user_error("transplant.mode", *mode_names(), value="kep"):
        settings("transplant.mode=kep")


def test_without_new_tokens_there_are_no_new_rows_to_train():
    with user_error("stages.new_rows.method", "transplant.mode", value="new_rows"):
        settings(*stages("new_rows"), "transplant=keep")


def test_modes_are_listed_and_planned_without_torch():
    code = (
        "import sys; from hpc_llm.vocabulary.modes import mode_names, mode_of; "
        "from hpc_llm import config; "
        "cfg = config.typed(config.compose(['transplant=keep'])); "
        "assert mode_of(cfg).rows(cfg, 7) == 7; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_mode_of_a_plugin_folder_is_used_and_fingerprinted(tmp_path, monkeypatch):
    for file, text in {
        "modes/first.py": PLUGIN,
        "conf/transplant/first.yaml": yaml.safe_dump({"defaults": ["replace"], "mode": "first"}),
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    monkeypatch.setenv("HPC_LLM_PLUGINS", str(tmp_path))
    assert "first" in mode_names()
    cfg = config.typed(config.compose(["transplant=first"]))
    assert adapted_rows(cfg, 512) == 100
    before = mode_settings(cfg)
    (tmp_path / "modes/first.py").write_text(PLUGIN + "\n")
    assert before != mode_settings(cfg)
    (tmp_path / "modes/first.py").write_text("MODE = None\n")
    sys.modules.pop("hpc_llm.vocabulary.modes.first")
    with user_error(str(tmp_path / "modes/first.py"), "Mode"):
        mode_of(cfg)
