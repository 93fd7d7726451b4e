"""From `conf/` and overrides to typed settings."""

import os

import pytest
from errors import user_error

from hpc_llm import config
from hpc_llm.rundir import conf_dir

OPTIONS = [
    f"{path.parent.name}={path.stem}"
    for path in sorted(conf_dir().glob("*/*.yaml"))
    if path.parent.name not in ("compose", "experiment", "method", "table", "task")
]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_is_typed(option):
    cfg = config.typed(config.compose([option]))
    group = option.split("=")[0]
    assert getattr(cfg, group) is not None


def test_every_file_starts_with_a_word_about_itself():
    for path in conf_dir().glob("**/*.yaml"):
        assert path.read_text(encoding="utf-8").startswith("#"), path


def test_without_arguments_the_example_is_meant_and_with_a_model_it_is_not():
    assert config.typed(config.compose([], example=True)).run == "example"
    assert config.typed(config.compose(["run=mine"], example=True)).recipe.name == "example"
    other = config.typed(config.compose(["model.path=x", "corpus.target=y"], example=True))
    assert (other.run, list(other.stages)) == (None, ["embeddings", "lora"])


def test_one_value_is_a_list_of_one():
    overrides = ["corpus.target=a b.jsonl", "stages.lora.targets=[q_proj,v_proj]"]
    cfg = config.typed(config.compose(overrides))
    assert cfg.corpus.target == ["a b.jsonl"]
    assert cfg.stages["lora"].targets == ["q_proj", "v_proj"]


def test_what_is_written_is_read_again(tmp_path):
    cfg = config.typed(
        config.compose(["experiment=example", "zero.extra.wall_clock_breakdown=true"])
    )
    config.write(cfg, tmp_path / "config.yaml")
    assert config.load(tmp_path / "config.yaml") == cfg
    assert cfg.zero.extra == {"wall_clock_breakdown": True}


def test_sizes_of_a_model_may_be_given_on_the_command_line():
    sizes = "{model_type: llama, hidden_size: 64}"
    for words in (
        [f"model.architecture={sizes}"],
        ["model.architecture.model_type=llama", "model.architecture.hidden_size=64"],
    ):
        cfg = config.typed(config.compose(words))
        assert cfg.model.architecture == {"model_type": "llama", "hidden_size": 64}


def test_a_file_of_another_version_is_reported(tmp_path):
    (tmp_path / "config.yaml").write_text("modle: {}\n")
    with user_error(str(tmp_path / "config.yaml"), "modle", "run=NAME"):
        config.load(tmp_path / "config.yaml")


def test_a_job_on_a_node_that_does_not_see_the_run_folder_says_so(tmp_path):
    with user_error(str(tmp_path / "config.yaml"), os.uname().nodename, "runs_dir"):
        config.load(tmp_path / "config.yaml")


def test_differences_name_the_key_and_both_values(tmp_path):
    one, two = (config.typed(config.compose([f"stages.lora.rank={r}"])) for r in (8, 16))
    config.write(one, tmp_path / "config.yaml")
    assert config.differences(tmp_path / "config.yaml", two) == ["stages.lora.rank: 8 -> 16"]
    extra = config.typed(config.compose(["stages.lora.rank=8", "zero.extra.a=1"]))
    assert config.differences(tmp_path / "config.yaml", extra) == ["zero.extra.a: None -> 1"]


def test_a_run_folder_outlives_an_upgrade(tmp_path):
    cfg = config.typed(config.compose([]))
    config.write(cfg, tmp_path / "config.yaml")
    written = (tmp_path / "config.yaml").read_text()
    older = written.replace("log_steps: 10", "steps_per_log: 10").replace("  money: null\n", "")
    assert older.count("\n") == written.count("\n") - 1
    (tmp_path / "config.yaml").write_text(older)
    assert config.differences(tmp_path / "config.yaml", cfg) == ["train.steps_per_log: 10 -> None"]


def test_a_sweep_is_every_combination():
    found = config.combinations(["run=x", "stages.lora.rank=8,16", "seed=range(1,3)"])
    assert found == [
        ["run=x", f"stages.lora.rank={rank}", f"seed={seed}"] for rank in (8, 16) for seed in (1, 2)
    ]


def test_the_rate_follows_the_width(default_config):
    stage = default_config.stages["embeddings"]
    assert stage.peak_rate(64) == pytest.approx(0.02)
    assert stage.peak_rate(4096) == pytest.approx(3.125e-4)
