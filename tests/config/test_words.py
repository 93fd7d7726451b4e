"""Values as typed: text where the setting is text, and one clear error where it is not."""

import os

import pytest
from errors import user_error

from hpc_llm import config
from hpc_llm.config.words import in_hydra_syntax, parse_override

TEXTS = [
    *("имя", "data(1)", "step=5", "[ab]", "1e3", "0x10", "1_000", "true", "null-like", "a b"),
    *(
        "a,b",
        "it's",
        'say "x"',
        "a$b",
        "a;b",
        "a:b",
        "{a: b}",
        "[a]",
        "range(1,3)",
        "a\\",
        "-1",
        "~",
    ),
    *(
        "1:30",
        "2020-01-01",
        "yes",
        ".5",
        "0o7",
        "a#b",
        "a # b",
        "!x",
        "&x",
        "*",
        "@x",
        "%d",
        "=",
        "5",
    ),
    *("'a b", 'a"', "a\\'b", "],[", "}", "(", "a||b", "١٢", "日本", "e\u0301", "nan", "inf", "on"),
]


def value_of(word):
    """Return the value that Hydra reads from an override."""
    return parse_override(in_hydra_syntax(word)).value()


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_taken_as_typed(text):
    assert value_of(f"model.name={text}") == text
    assert value_of(f"stages.lora.from={text}") == text
    assert value_of(f"corpus.target={text}.jsonl") == [f"{text}.jsonl"]
    assert value_of(f"corpus.texts.books={text}.jsonl") == [f"{text}.jsonl"]
    assert value_of(f"cluster.environment.NAME={text}") == text


def test_text_reaches_the_run_and_is_read_again(tmp_path):
    words = ["corpus.target=[книги.jsonl,data(1).jsonl,[ab].jsonl]", "run=1e3", "model.name=null"]
    words += ["corpus.source=a,b.jsonl", "tracking.project=1:30", "cluster.environment={A: 0x10}"]
    cfg = config.typed(config.compose(words))
    assert cfg.corpus.target == ["книги.jsonl", "data(1).jsonl", "[ab].jsonl"]
    assert (cfg.run, cfg.model.name, cfg.corpus.source) == ("1e3", None, ["a,b.jsonl"])
    assert cfg.cluster.environment == {"A": "0x10"}
    config.write(cfg, tmp_path / "config.yaml")
    assert config.load(tmp_path / "config.yaml") == cfg


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("run='a b'", "a b"),
        ('run="a, b"', "a, b"),
        ("run=null", None),
        ("run=a\\,b", "a,b"),
        ("corpus.target=[]", []),
        ("corpus.target=['a, b',c]", ["a, b", "c"]),
        ("corpus.texts={books: [a b.jsonl], chat: 1e3}", {"books": ["a b.jsonl"], "chat": ["1e3"]}),
        ("seed=1_000", 1000),
        ("train.weight_decay=1e-3", 1e-3),
    ],
)
def test_quotes_lists_and_null_keep_their_meaning(word, value):
    assert value_of(word) == value


@pytest.mark.parametrize(
    ("words", "trials"),
    [
        (["run=имя,1e3"], ["run='имя'", "run='1e3'"]),
        (
            ["corpus.target=a b.jsonl,[c,d(1)]"],
            ["corpus.target=[a\\ b.jsonl]", "corpus.target=[c,'d(1)']"],
        ),
        (["stages.lora.rank=8,16"], ["stages.lora.rank=8", "stages.lora.rank=16"]),
        (["seed=range(1,3)"], ["seed=1", "seed=2"]),
        (["run='a,b'", "seed=1,2"], ["seed=1", "seed=2"]),
    ],
)
def test_commas_separate_the_values_of_a_sweep(words, trials):
    found = [combination[-1] for combination in config.combinations(words)]
    assert found == trials


def test_a_sweep_needs_something_to_sweep():
    with user_error("-m", "stages.lora.rank=8,16"):
        config.combinations(["run=x", "corpus.target=[a,b]"])


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("=5", "=5", None),
        ("foo", "foo", None),
        ("run=???", "run", "???"),
        ("run=", "run", "''"),
        ("run=${model.name}", "run", "${model.name}"),
        ("hardware.source=${run}", "hardware.source", "${run}"),
        ("ключ=5", "ключ", None),
        ("corpus.texts.книги=a", "corpus.texts.книги", None),
        ("seed=книги", "seed", "книги"),
        ("seed=١٢", "seed", "١٢"),
        ("seed=1.5", "seed", "1.5"),
        ("seed=true", "seed", "True"),
        ("seed=1,2", "seed", "1,2"),
        ("seed=${seed}", "seed", None),
        ("train.replay=٠.5", "train.replay", "٠.5"),
        ("cache=maybe", "cache", "maybe"),
        ("model=модель", "model", "модель"),
        ("train=null", "train", "null"),
        ("zero=", "zero", "''"),
        ("zero={stage: 1}", "zero", {"stage": 1}),
        ("~zero", "~zero", None),
        ("~run", "~run", None),
        ("~stages.lora.alpha", "~stages.lora.alpha", None),
        ("stages.lora.targets=[[1]]", "stages.lora.targets", "[1]"),
        ("stages.lora.targets=[a,,b]", "stages.lora.targets", "''"),
        ("stages.lora.from=embeddings@٥", "stages.lora.from", "embeddings@٥"),
        ("corpus.target=null", "corpus.target", None),
        ("model.path=a\nb", "model.path", "'a\\nb'"),
        ("model.path=\udcd0", "model.path", "\\udcd0"),
    ],
)
def test_a_value_that_cannot_be_is_named(word, key, value):
    with user_error(key, value=value):
        config.typed(config.compose([word]))


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("run=../up", "run"),
        ("run=a/../../b", "run"),
        ("run=/abs", "run"),
        ("run=~/x", "run"),
        ("run=.", "run"),
        ("run=.cache", "run"),
        (f"run={'я' * 128}", "run"),
        (f"run=a/{'b' * 256}", "run"),
        (f"runs_dir={'b/' * 2048}", "runs_dir"),
        ("runs_dir=", "runs_dir"),
        ("model.name=../up", "model.name"),
        ("model.path=..", "model.path"),
    ],
)
def test_a_run_folder_is_below_runs_dir_and_can_be_created(word, key):
    with user_error(key):
        config.typed(config.compose([word]))


def test_the_longest_name_is_taken(tmp_path):
    cfg = config.typed(config.compose([f"run={'я' * 127}", f"runs_dir={tmp_path}"]))
    cfg.folder.mkdir()


def test_environment_variables_are_read(tmp_path):
    os.environ["PLACE"] = str(tmp_path)
    assert config.typed(config.compose(["runs_dir=${oc.env:PLACE}/runs"])).runs_dir == (
        f"{tmp_path}/runs"
    )


@pytest.mark.parametrize("content", ["5", "[1", "[1]", "", "\xff\xfe", None])
def test_a_file_that_is_no_configuration_is_named(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.mkdir() if content is None else path.write_text(content, encoding="latin-1")
    with user_error(str(path)):
        config.load(path)
