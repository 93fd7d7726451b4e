"""Which stages a changed setting touches."""

from dataclasses import replace

import pytest
from errors import user_error

from hpc_llm import config
from hpc_llm.pipeline import pipeline


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
TOKENIZER_MEASURED = {"evaluate/tokenizer", "report"}
MEASURED = {name for name in EVERYTHING if "evaluate" in name} | {"correct", "report"}
MEASURED.remove("evaluate/tokenizer")  # it scores no text with a model
AFTER_TOKENIZER = AFTER_TRANSPLANT | {"tokenizer", "evaluate/tokenizer", "evaluate/base"}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stages.lora.alpha=32", AFTER_LORA),
        ("stages.embeddings.steps=3", AFTER_EMBEDDINGS),
        ("transplant.input=random", AFTER_TRANSPLANT),
        ("tokenizer.vocab_size=900", AFTER_TOKENIZER),
        ("tokenizer.compare=[bpe]", TOKENIZER_MEASURED),
        ("evaluation.tune_bytes=9000", MEASURED | TOKENIZER_MEASURED),
        ("correct.rule=weighted", {"correct", "evaluate/corrected", "report"}),
        ("correct.beta=1", set()),  # counts in correct.rule=weighted only
        ("evaluation.stride=100", MEASURED),
        ("seed=2", EVERYTHING),
        ("stages.pretrain.steps=3", EVERYTHING - {"corpus"}),
        ("train.weight_decay=0.1", EVERYTHING - {"corpus"}),
        ("hardware.price_high=9", {"report"}),
        ("hardware=a100_sxm_80gb", EVERYTHING - {"corpus"}),  # it trains in bf16
        ("train.replay=0.2", AFTER_TOKENIZER),
        ("train.batching=grouped", EVERYTHING - {"corpus"}),
        ("train.log_steps=3", set()),
        ("zero=stage2", set()),
        ("tracking=off", set()),
        ("launch.processes=2", set()),
        ("stages.lora.sequence_length=256", AFTER_LORA),
        ("stages.lora.schedule.name=linear", AFTER_LORA),
        ("stages.lora.text={target: 0.9, source: 0.1}", AFTER_TOKENIZER),
        ("stages.lora.from=transplant", AFTER_LORA),
        ("stages.lora.micro_batch_tokens=512", set()),
        # settings that do nothing with the others as they are
        ("schedule.decay=exponential", set()),
        ("train.sequence_warmup.steps=7", set()),
        ("train.lora_weight_decay=0.1", AFTER_LORA),
        ("train.steps.full=7", EVERYTHING - {"corpus"}),
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


def test_no_model_and_no_pretraining_is_reported():
    cfg = config.typed(config.compose(["corpus=sample"]))
    with user_error("model.path", "FOLDER_OR_HUB_ID", value="null"):
        pipeline(cfg)


def test_no_source_text_to_replay_is_reported():
    overrides = ["train.replay=0.2", "corpus.source=[]", "model.path=somewhere/model"]
    with user_error("train.replay", "corpus.source=", value=0.2):
        pipeline(typed(*overrides))


def test_an_unknown_text_is_refused_with_those_that_exist(tmp_path):
    file = tmp_path / "books.jsonl"
    file.write_text('{"text": "one"}\n')
    texts = f"corpus.texts={{books: [{file}]}}"
    with user_error("stages.lora.text", "wiki", "books", "corpus.texts={wiki: [FILES]}"):
        pipeline(typed(texts, "stages.lora.text={wiki: 1}"))
    by_name = {stage.name: stage for stage in pipeline(typed(texts, "stages.lora.text={books: 1}"))}
    assert "tokenizer/shards/books.json" in by_name["tokenizer"].outputs
    assert by_name["corpus"].fingerprint != pipeline(typed())[0].fingerprint
    with user_error("corpus.texts.target", value=None):
        pipeline(typed(f"corpus.texts={{target: [{file}]}}"))


def test_replayed_text_is_awaited():
    (tokenizer,) = (s for s in pipeline(typed("train.replay=0.2")) if s.name == "tokenizer")
    assert "tokenizer/shards/source.json" in tokenizer.outputs


def test_all_needs_come_before():
    seen = set()
    for stage in pipeline(typed()):
        assert set(stage.needs) <= seen
        seen.add(stage.name)
