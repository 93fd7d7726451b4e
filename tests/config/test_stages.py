"""Stages as named instances: composed, ordered, each typed by its method."""

import pytest
from errors import user_error

from hpc_llm import config
from hpc_llm.methods import describe, method_names


def composed(*overrides):
    return config.typed(config.compose(list(overrides)))


def test_a_second_stage_of_a_method_comes_last_with_its_own_settings():
    cfg = composed("+method@stages.lora2=lora", "stages.lora2.rank=8", "stages.lora.rank=16")
    assert list(cfg.stages) == ["embeddings", "lora", "lora2"]
    assert (cfg.stages["lora"].rank, cfg.stages["lora2"].rank) == (16, 8)
    assert [cfg.parent(name) for name in cfg.stages] == ["transplant", "embeddings", "lora"]


def test_a_stage_is_removed_and_a_method_exchanged():
    cfg = composed("~stages.embeddings", "method@stages.lora=full")
    assert {name: stage.method for name, stage in cfg.stages.items()} == {"lora": "full"}
    assert cfg.parent("lora") == "transplant"


@pytest.mark.parametrize("method", method_names())
def test_every_setting_of_a_method_has_a_value(method):
    cfg = composed("recipe=none", f"+method@stages.x={method}")
    assert type(cfg.stages["x"]) is describe(method).settings
    assert cfg.stages["x"].method == method


def test_a_stage_trains_with_its_own_rows_batch_and_schedule():
    cfg = composed(
        "stages.lora.sequence_length=1024", "stages.lora.batch_tokens=8192",
        "stages.lora.schedule.name=constant",
    )  # fmt: skip
    own, other = cfg.for_stage("lora"), cfg.for_stage("embeddings")
    assert (own.train.sequence_length, own.train.batch_tokens) == (1024, 8192)
    assert own.schedule.name == "constant"
    assert own.schedule.warmup_fraction == cfg.schedule.warmup_fraction
    assert other == cfg


def test_a_whole_schedule_may_be_chosen_for_a_stage():
    cfg = composed("+schedule@stages.lora.schedule=wsd")
    assert cfg.for_stage("lora").schedule.decay_fraction == pytest.approx(0.2)


def test_shares_of_texts_sum_to_one():
    cfg = composed("stages.lora.text={target: 3, source: 1}", "train.replay=0.1")
    assert cfg.text_of("lora").parts == {"target": 0.75, "source": 0.25}
    assert cfg.text_of("embeddings").parts == {"target": 0.9, "source": 0.1}


def test_a_branch_stands_in_the_place_of_its_stage():
    cfg = composed(
        "+method@stages.a=lora", "+method@stages.b=lora", "stages.a.from=lora@50",
        "stages.b.from=lora",
    )  # fmt: skip
    assert cfg.lineage("a") == ["embeddings", "a"]
    assert cfg.lineage("b") == ["embeddings", "lora", "b"]
    assert cfg.stages["a"].branch == ("lora", 50)
    assert cfg.stages["b"].branch is None


def test_what_is_written_is_read_again_with_from(tmp_path):
    cfg = composed("+method@stages.a=lora", "stages.a.from=lora@50", "stages.a.text={target: 1}")
    config.write(cfg, tmp_path / "config.yaml")
    assert "from: lora@50" in (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert config.load(tmp_path / "config.yaml") == cfg


WRONG = [
    (["stages.lora.alhpa=3"], "stages.lora.alhpa", "stages.lora.alpha"),
    (["+stages.lora.alhpa=3"], "stages.lora.alhpa", "alpha"),
    (["stages.embeddings.rank=3"], "stages.embeddings.rank", "stages.lora.rank"),
    (["+stages.embeddings.rank=3"], "stages.embeddings.rank", "embeddings"),
    (["stages.lora.rank=0"], "stages.lora.rank", "at least 1"),
    (["stages.lora.from=nothing"], "stages.lora.from", "embeddings"),
    (["stages.lora.from=embeddings@many"], "stages.lora.from", "STAGE@STEP"),
    (["stages.lora.from=embeddings@5"], "stages.lora.method", "embeddings"),
    (["+method@stages.b=lora", "stages.b.from=lora@9999"], "stages.b.from", "400"),
    (["stages.lora.from=scratch"], "stages.lora.from", "first"),
    (["stages.lora.batch_tokens=1000"], "stages.lora.batch_tokens", "512"),
    (["stages.lora.schedule.colour=1"], "stages.lora.schedule.colour", "warmup_fraction"),
    (["stages.lora.schedule.name=x"], "stages.lora.schedule.name", "cosine"),
    (["stages.lora.text={target: -1}"], "stages.lora.text.target", "0"),
    (["stages.lora.tokens=5", "stages.lora.pf_days=1"], "stages.lora.tokens", "pf_days"),
    (["+method@stages.base=lora"], "stages.base", "corrected"),
    (["+stages.mine.steps=5"], "stages.mine", "+method@stages.mine="),
    (["train.lora.alpha=3"], "train.lora.alpha", "stages.lora.alpha"),
    (["train.pretrain.steps=3"], "train.pretrain.steps", "stages.pretrain.steps"),
    (["replay.step=3"], "replay.step", "rerun.step"),
    (["recipe.stages=[full]"], "recipe.stages", "recipe=end_to_end"),
    (["recipe.stages=[pretrain,embeddings,lora]"], "recipe.stages", "recipe=example"),
    (["recipe.stages=[lora]"], "recipe.stages", "~stages.embeddings"),
    (["recipe.stages=[embeddings,head]"], "recipe.stages", "+method@stages.head=head"),
]


@pytest.mark.parametrize(("overrides", "key", "mention"), WRONG, ids=lambda x: str(x)[:40])
def test_wrong_stages_are_refused_by_name(overrides, key, mention):
    with user_error(key, mention):
        composed(*overrides)


def test_an_old_configuration_file_is_refused_with_the_new_form(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("recipe: {name: two_stage, stages: [embeddings, lora]}\n", encoding="utf-8")
    with user_error("recipe.stages", "recipe=two_stage"):
        config.load(file)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "two_stage"),
        (["stages.lora.rank=8"], "two_stage"),
        (["recipe=end_to_end"], "end_to_end"),
        (["~stages.embeddings"], "lora"),
        (["+method@stages.lora2=lora"], "embeddings+lora+lora2:lora"),
        (["method@stages.lora=full"], "embeddings+lora:full"),
        (["recipe=none", "+method@stages.full=full"], "full"),
        (["~stages.embeddings", "recipe.name=mine"], "mine"),
    ],
)
def test_a_recipe_whose_stages_were_changed_is_named_by_them(words, name):
    assert config.typed(config.compose(words)).recipe.name == name
