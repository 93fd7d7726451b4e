"""Evaluation by several ranks: the same bytes as by one, whole and partitioned by ZeRO-3."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import forked_ranks
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = [f"w{number}" for number in range(50)]
PLUGIN = "files: mine.jsonl\nkind: pair\nchoices: ['{{ a }}', '{{ b }}']\nmetric: [acc]\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a model of 60 tokens, an adapter, texts and a task of 300 pairs."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        initializer_range=0.3, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "model")
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    for name, value in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value, std=0.3)
    adapted.save_pretrained(folder / "adapter")
    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {word: i + 3 for i, word in enumerate(WORDS)}
    plain = Tokenizer(models.WordLevel(words, "<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=plain, **special).save_pretrained(folder / "model")
    random = np.random.default_rng(1)

    def text(length):
        return " ".join(random.choice(WORDS, length))

    texts = {
        side: [text(random.integers(3, 60)) for _ in range(9)] for side in ("target", "source")
    }
    (folder / "texts.json").write_text(json.dumps(texts))
    pairs = [{"a": text(4), "b": text(random.integers(2, 6))} for _ in range(300)]
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    (folder / "conf/task").mkdir(parents=True)
    (folder / "conf/task/mine.yaml").write_text(PLUGIN)
    return folder


def sizes(made):
    """Return the elements of the model with its adapter, and those of its largest module."""
    found = {}
    for path in (made / "model/model.safetensors", made / "adapter/adapter_model.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118, not a mapping
                found[name] = math.prod(file.get_slice(name).get_shape())
    return sum(found.values()), max(found.values())


def ranks(made, out, processes, **more):
    """Evaluate with some ranks; return what rank 0 prints, and the bytes of the files."""
    argument = json.dumps({"folder": str(made), "out": str(out), **more})
    environment = {**os.environ, "HPC_LLM_PLUGINS": str(made)}
    program = str(Path(__file__).parent / "ranks_tiny.py")
    ended = forked_ranks(program, argument, processes, environment)
    console = "".join(rank.stderr for rank in ended)
    assert not any(rank.returncode for rank in ended), console[-3000:]
    (line,) = [line for line in ended[0].stdout.splitlines() if line.startswith("[")]
    files = {path.name: path.read_bytes() for path in out.rglob("*.*") if path.name[0] != "."}
    return json.loads(line)[0], files


@pytest.fixture(scope="module")
def alone(made, tmp_path_factory):
    """The evaluation by one rank."""
    return ranks(made, tmp_path_factory.mktemp("alone"), 1)


@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_ranks_gives_the_same_bytes(made, alone, tmp_path, processes):
    found, files = ranks(made, tmp_path, processes)
    assert files == alone[1]
    assert set(files) == {"losses.npz", "mine.json", "mine.jsonl", "found.json"}
    assert len(set(found["curve"])) == len(found["curve"])  # each factor, each language
    assert len(set(map(len, found["samples"]))) == 3
    raised = [["RankFailed", 2], ["UserError", 2], *[["RankFailed", 2]] * (processes - 2)]
    assert found["failure"] == raised  # one rank reports, all exit with its code


def test_a_task_stopped_on_four_ranks_resumes_on_two_with_the_same_bytes(made, alone, tmp_path):
    found, files = ranks(made, tmp_path, 4, stop=1)
    assert found["stopped"]
    assert "mine.json" not in files
    (partial,) = tmp_path.glob(".point.mine.partial.jsonl")
    begins = [json.loads(line).get("begin") for line in partial.read_text().splitlines()]
    assert begins == [None, 0, 64, 128, 192]
    found, files = ranks(made, tmp_path, 2)
    assert files == alone[1]
    again = [json.loads(line).get("begin") for line in partial.read_text().splitlines()]
    assert again == [*begins, 256]


def test_a_partitioned_model_in_bf16_gives_the_losses_of_the_whole_one(made, tmp_path):
    """Its adapters stay in fp32."""
    whole, _ = ranks(made, tmp_path / "whole", 1, precision="bf16")
    found, _ = ranks(made, tmp_path / "part", 2, precision="bf16", partition=True)
    assert found["curve"] == pytest.approx(whole["curve"], rel=1e-6)


@pytest.mark.parametrize("processes", [2, 4])
def test_a_partitioned_model_gives_equal_losses(made, alone, tmp_path, processes):
    found, files = ranks(made, tmp_path, processes, partition=True)
    whole, _ = alone
    for side, value in whole["bpb"].items():
        assert found["bpb"][side] == pytest.approx(value, rel=1e-6)
    assert found["curve"] == pytest.approx(whole["curve"], rel=1e-6)
    scores = [json.loads(line)["scores"] for line in files["mine.jsonl"].decode().splitlines()]
    own = [json.loads(line)["scores"] for line in alone[1]["mine.jsonl"].decode().splitlines()]
    np.testing.assert_allclose(scores, own, rtol=1e-5)
    assert found["samples"] == whole["samples"]
    total, largest = sizes(made)
    assert found["peak"] <= -(-total // processes) + largest + 99  # rounding of each share
