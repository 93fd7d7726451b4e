"""What is wrong with a plug-in file is one error that names the file, before anything is spent."""

from dataclasses import replace

import pytest
import yaml
from errors import user_error
from tiny import stage_of, stages

from hpc_llm import config
from hpc_llm.methods import Adapter, Description, describe, method_names, trains
from hpc_llm.pipeline.fingerprints import COUNTING
from hpc_llm.rundir.confdir import conf_dir
from hpc_llm.settings.stage import StageSettings
from hpc_llm.vocabulary.initial import initial_names, initialisation

METHOD = """\
from hpc_llm.methods import Description, Trains
from hpc_llm.methods.head import METHOD as HEAD

METHOD = Description(settings=HEAD.settings, trains=lambda stage: Trains(head=True))
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    monkeypatch.setenv("HPC_LLM_PLUGINS", str(tmp_path))
    for name in ("methods", "initial", "conf/method"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def add(folder, name, code):
    """Write a method with the YAML of `head`."""
    (folder / "methods" / f"{name}.py").write_text(code)
    own = yaml.safe_load((conf_dir() / "method/head.yaml").read_text())
    (folder / "conf/method" / f"{name}.yaml").write_text(yaml.safe_dump(own | {"method": name}))
    return folder / "methods" / f"{name}.py"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("empty", ""),
        ("number", "METHOD = 3"),
        ("torn", "def f(:"),
        ("lost", "import nosuchmodule"),
        ("sizes", METHOD + "\n1 / 0"),
        ("maybe", METHOD.replace("HEAD.settings,", "HEAD.settings, merges='maybe',")),
    ],
)
def test_a_method_that_cannot_be_read_is_named(plugins, name, code):
    file = add(plugins, name, code)
    with user_error(str(file)):
        describe(name)
    with user_error(str(file)):  # and again: nothing half-imported is left
        describe(name)


def test_a_method_that_returns_something_else_is_named(plugins):
    add(plugins, "nothing", METHOD.replace("Trains(head=True)", "None"))
    stage = replace(stage_of("head"), method="nothing")
    with user_error("method nothing", "trains()"):
        trains(stage)


def test_an_adapter_of_an_unknown_length_is_refused():
    for length in ("outt", 0, -1, 1.5):
        with user_error("Adapter A", value=length):
            Adapter(label="A", vectors=(length,))
    with user_error("METHOD.merges", value="maybe"):
        Description(settings=StageSettings, trains=lambda stage: None, merges="maybe")


@pytest.mark.parametrize("kind", ["methods", "initial"])
def test_a_plugin_with_the_name_of_an_own_choice_is_refused(plugins, kind):
    name = {"methods": "lora", "initial": initial_names()[0]}[kind]
    file = plugins / kind / f"{name}.py"
    file.write_text("")
    with user_error(str(file), name):
        method_names() if kind == "methods" else initialisation(name)


def test_an_initialisation_without_rows_is_named(plugins):
    file = plugins / "initial" / "bare.py"
    file.write_text("ROWS = 3\n")
    with user_error(str(file), "rows"):
        initialisation("bare")


def counted(name, *overrides):
    cfg = config.typed(config.compose([*stages("head"), "tokenizer.vocab_size=900", *overrides]))
    return COUNTING[name](cfg, "head")


def test_the_code_of_a_plugin_counts_for_the_stages_that_use_it(plugins):
    words = [f"+method@stages.{name}={name}" for name in ("one", "two")]
    for name in ("one", "two"):
        add(plugins, name, METHOD)
    cfg = config.typed(config.compose(["recipe=none", *words]))
    before = [COUNTING["train"](cfg, name) for name in ("one", "two")]
    add(plugins, "one", METHOD + "# another\n")
    after = [COUNTING["train"](cfg, name) for name in ("one", "two")]
    assert after[0] != before[0]
    assert after[1] == before[1]
    (plugins / "initial" / "twice.py").write_text("def rows(old, tokens): return old\n")
    chosen = ["transplant.input=twice"]
    first = counted("transplant", *chosen)
    (plugins / "initial" / "twice.py").write_text("def rows(old, tokens): return 2 * old\n")
    assert counted("transplant", *chosen) != first
    assert "input_initialisation" not in counted("transplant")["transplant"]


def test_yaml_that_cannot_be_read_is_one_error(plugins):
    add(plugins, "broken", METHOD)
    (plugins / "conf/method/broken.yaml").write_text("method: [\n")
    with user_error("conf"):
        config.compose(["recipe=none", "+method@stages.mine=broken"])


@pytest.mark.parametrize(
    ("override", "key", "value", "mention"),
    [
        ("+method@stages.x=lorra", "method", "lorra", "lora"),
        ("hardware=a100_sxm_80g", "hardware", "a100_sxm_80g", "a100_sxm_80gb"),
        ("method@stages.x=lora", "method@stages.x", None, "+method@stages.x="),
        ("stages.lora.target=[k_proj]", "stages.lora.target", None, "stages.lora.targets"),
        ("+method=lora", "method", None, "+method@stages.NAME=METHOD"),
        ("+method@stage.x=lora", "method@stage.x", None, "+method@stages.NAME=METHOD"),
        ("+method@stages.lora=head", "method@stages.lora", None, "stages.lora"),
        ("stages.lora.steps=abc", "stages.lora.steps", "abc", "stages.lora"),
        ("stages.embeddings.foo=3", "stages.embeddings.foo", None, "learning_rate"),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(override, key, value, mention):
    with user_error(key, mention, value=value):
        config.typed(config.compose([override]))
