"""Which stages a changed setting touches."""

from dataclasses import replace

import pytest

from hpc_llm import config
from hpc_llm.errors import UserError
from hpc_llm.pipeline.table import pipeline


def changed(*overrides):
    before = {s.name: s.fingerprint for s in pipeline(typed())}
    after = {s.name: s.fingerprint for s in pipeline(typed(*overrides))}
    return {name for name in before if before[name] != after[name]}


def typed(*overrides):
    return config.typed(config.compose(["experiment=example", *overrides]))


EVERYTHING = {s.name for s in pipeline(typed())}
AFTER_LORA = {"train/lora", "evaluate/lora", "correct", "evaluate/corrected", "report"}
AFTER_EMBEDDINGS = AFTER_LORA | {"train/embeddings", "evaluate/embeddings"}
AFTER_TRANSPLANT = AFTER_EMBEDDINGS | {"transplant", "evaluate/transplant"}
MEASURED = {name for name in EVERYTHING if "evaluate" in name} | {"correct", "report"}
AFTER_TOKENIZER = AFTER_TRANSPLANT | {"tokenizer", "evaluate/base"}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.lora.alpha=32", AFTER_LORA),
        ("train.embeddings.steps=3", AFTER_EMBEDDINGS),
        ("transplant.input=random", AFTER_TRANSPLANT),
        ("tokenizer.vocab_size=900", AFTER_TOKENIZER),
        ("correct.beta=1", {"correct", "evaluate/corrected", "report"}),
        ("evaluation.stride=100", MEASURED),
        ("seed=2", EVERYTHING),
        ("train.pretrain.steps=3", EVERYTHING - {"corpus"}),
        ("train.weight_decay=0.1", EVERYTHING - {"corpus"}),
        ("hardware.price_high=9", {"report"}),
        ("hardware=a100_sxm_80gb", EVERYTHING - {"corpus"}),  # it trains in bf16
        ("train.replay=0.2", AFTER_TOKENIZER),
        ("train.batching=grouped", EVERYTHING - {"corpus"}),
        ("train.log_steps=3", set()),
        ("zero=stage2", set()),
        ("tracking=off", set()),
        ("launch.processes=2", set()),
        ("run=other", set()),
    ],
)  # fmt: skip
def test_a_setting_touches_what_depends_on_it_and_only_that(override, expected):
    assert changed(override) == expected


def test_a_file_counts_by_its_content(tmp_path):
    def corpus(name, text):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        cfg = replace(typed(), corpus=replace(typed().corpus, target=[str(path)]))
        return pipeline(cfg)[0].fingerprint

    assert corpus("a.txt", "один") != corpus("a.txt", "два")


def test_no_model_and_no_pretraining_is_told():
    cfg = config.typed(config.compose(["corpus=sample"]))
    with pytest.raises(UserError, match=r"no model to adapt; give model\.path="):
        pipeline(cfg)


def test_no_source_text_to_replay_is_told():
    overrides = ["train.replay=0.2", "corpus.source=[]", "model.path=somewhere/model"]
    with pytest.raises(UserError, match=r"train.replay=0.2: there is no source text to replay"):
        pipeline(typed(*overrides))


def test_replayed_text_is_awaited():
    (tokenizer,) = (s for s in pipeline(typed("train.replay=0.2")) if s.name == "tokenizer")
    assert "tokenizer/shards/source.json" in tokenizer.outputs


def test_all_needs_come_before():
    seen = set()
    for stage in pipeline(typed()):
        assert set(stage.needs) <= seen
        seen.add(stage.name)
