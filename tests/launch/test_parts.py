"""The recipe divided into jobs, and what each of them asks for."""

import re

import pytest
from errors import user_error
from tiny import stages

from hpc_llm.config import compose, typed
from hpc_llm.launch import Part, divide, job_script
from hpc_llm.pipeline import pipeline, stage_names

GPUS = ("model=tinyllama-1.1b", "model.path=some/model", "cluster=h100_4x8", "launch=slurm")


def parts(*overrides: str) -> dict[str, Part]:
    cfg = typed(compose(list(overrides)))
    return {part.name: part for part in divide(cfg, stage_names(cfg))}


def shape(part: Part) -> tuple[object, ...]:
    keys = ("nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task")
    return tuple(part.options.get(key) for key in keys)


def test_names_of_stages_are_those_of_the_pipeline() -> None:
    for names in (("pretrain", "embeddings", "lora"), ("pretrain", "embeddings")):
        cfg = typed(compose(["experiment=example", *stages(*names)]))
        assert stage_names(cfg) == [stage.name for stage in pipeline(cfg)]


def test_each_part_gets_what_it_needs() -> None:
    chain = parts(*GPUS, "launch.cpus_per_task=12")
    assert list(chain) == ["corpus+tokenizer", "transplant", "train", "result"]
    assert shape(chain["corpus+tokenizer"]) == (1, 1, None, 12)
    assert shape(chain["transplant"]) == (1, 1, 1, 12)
    assert shape(chain["train"]) == (4, 8, 8, 12)
    assert shape(chain["result"]) == (1, 1, 1, 12)
    assert chain["transplant"].stages == ("evaluate/base", "transplant", "evaluate/transplant")
    assert chain["result"].stages == (
        *("evaluate/embeddings", "evaluate/lora", "correct", "evaluate/corrected", "report"),
    )


def test_the_base_model_of_the_example_is_trained_between_corpus_and_tokenizer() -> None:
    names = list(parts("experiment=example", "launch=slurm", "cluster.nodes=2"))
    assert names == ["corpus", "pretrain", "tokenizer+transplant", "train", "result"]


def test_parts_that_need_the_same_are_one_job() -> None:
    assert list(parts("experiment=example", "launch=slurm")) == [
        "corpus+pretrain+tokenizer+transplant+train+result"
    ]
    one_gpu = (*GPUS, "cluster.nodes=1", "cluster.devices_per_node=1")
    assert list(parts(*one_gpu)) == ["corpus+tokenizer", "transplant+train+result"]
    (one,) = parts(*GPUS, "launch.chain=false").values()
    assert shape(one) == (4, 8, 8, None)


def test_text_goes_to_the_nodes_without_gpus() -> None:
    site = ("launch.partition=gpu", "launch.constraint=a100", "launch.account=me")
    chain = parts(*GPUS, *site, "launch.cpu_partition=cpu")
    text, train = chain["corpus+tokenizer"].options, chain["train"].options
    assert (text["partition"], train["partition"]) == ("cpu", "gpu")
    assert (text["account"], train["account"]) == ("me", "me")
    assert "constraint" not in text
    assert train["constraint"] == "a100"


def test_options_for_gpus_are_cut_to_what_a_part_has() -> None:
    own = ("launch.options.gpus-per-node=null", "launch.options.gres=gpu:h100:8")
    chain = parts(*GPUS, *own, "launch.options.exclusive=true", "launch.options.mail-type=END")
    assert chain["train"].options["gres"] == "gpu:h100:8"
    assert chain["result"].options["gres"] == "gpu:h100:1"
    assert "gpus-per-node" not in chain["result"].options
    assert not {"gres", "exclusive"} & set(chain["corpus+tokenizer"].options)
    assert {part.options["mail-type"] for part in chain.values()} == {"END"}


def test_a_part_has_options_of_its_own() -> None:
    own = ("launch.time=2:00:00", "launch.parts.train.time=48:00:00", "launch.parts.result.mem=64G")
    chain = parts(*GPUS, *own)
    assert chain["train"].options["time"] == "48:00:00"
    assert chain["result"].options["time"] == "2:00:00"
    assert chain["result"].options["mem"] == "64G"


@pytest.mark.parametrize(
    ("override", "key", "value", "mention"),
    [
        ("launch.parts.lora.time=9", "launch.parts", "lora", "corpus, pretrain"),
        ("launch.parts.train=9", "launch.parts.train", 9, "launch.parts.train.time="),
        ("launch.parts.train.T=9", "launch.parts.train.T", None, "launch.parts.train.mail-type="),
    ],
)
def test_wrong_parts_are_reported(override: str, key: str, value: object, mention: str) -> None:
    with user_error(key, mention, value=value):
        parts(*GPUS, override)


def test_a_job_without_gpus_takes_none_and_does_its_own_stages() -> None:
    cfg = typed(compose([*GPUS, "run=x"]))
    text, *others = divide(cfg, stage_names(cfg))
    script = job_script(cfg, "adapt", cfg.folder / "config.yaml", text)
    assert "export CUDA_VISIBLE_DEVICES=''" in script
    stages = "corpus,tokenizer,evaluate/tokenizer"
    assert re.search(rf"hpc-llm adapt --stages {stages} --config \S+/x/config.yaml", script)
    assert "--job-name=corpus+tokenizer-x\n" in script
    for part in others:
        assert "CUDA_VISIBLE" not in job_script(cfg, "adapt", cfg.folder / "config.yaml", part)


def test_a_single_job_is_the_verb_itself() -> None:
    cfg = typed(compose([*GPUS, "launch.chain=false", "run=x"]))
    (part,) = divide(cfg, ["train/lora"])
    script = job_script(cfg, "train", cfg.folder / "config.yaml", part)
    assert script == job_script(cfg, "train", cfg.folder / "config.yaml")
    assert "--stages" not in script
    (part,) = divide(cfg, ["train/lora"], whole=False)
    assert "train --stages train/lora " in job_script(cfg, "train", cfg.folder / "c.yaml", part)


def test_a_site_knows_its_partition_cores_and_limits() -> None:
    site = ("model=tinyllama-1.1b", "model.path=some/model", "cluster=leonardo", "launch=slurm")
    train = parts(*site)["train"]
    assert train.options["partition"] == "boost_usr_prod"
    assert shape(train) == (8, 4, 4, 8)
    own = parts(*site, "launch.partition=mine", "launch.cpus_per_task=3", "launch.time=99:00:00")
    assert own["train"].options["partition"] == "mine"
    assert shape(own["train"]) == (8, 4, 4, 3)
    assert parts(*site, "launch.time=24:00:00", "launch.mem=512G")
    for word, mentions in (
        ("launch.time=24:00:01", ("Leonardo Booster", "24:00:00")),
        ("launch.parts.train.time=25:00:00", ("Leonardo Booster", "24:00:00")),
        ("launch.parts.train.mem=4T", ("Leonardo Booster", "512G")),
        ("launch.parts.corpus.time=soon", ("sbatch",)),
        ("launch.time=UNLIMITED", ("Leonardo Booster", "24:00:00")),
        ("launch.mem=513G", ("Leonardo Booster", "512G")),
        ("launch.mem=1T", ("Leonardo Booster", "512G")),
        ("launch.processes=3", ("cluster.devices_per_node=4",)),
        ("launch.mem=much", ("sbatch",)),
    ):
        key, _, value = word.partition("=")
        with user_error(key, *mentions) as caught:
            parts(*site, word)
        assert str(caught.value.value) == value
    assert parts(*site, "launch.time=99:00:00", "launch.qos=long")
