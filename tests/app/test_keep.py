"""transplant=keep on a Qwen2 base with byte-level BPE, padded embeddings and no tokenizer.json."""

import json

import numpy as np
import pytest
import torch
from tiny import hpc_llm, records, results, stages
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from hpc_llm.corpus import read_texts
from hpc_llm.tokenizer import open_shards

ROWS = 640
TEXT = ["Жили-были старик со старухой у самого синего моря. <|endoftext|>", "a  b\n\n\tc 123", "😀"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder as `Qwen2` is published, but with vocab.json and merges.txt alone."""
    folder = tmp_path_factory.mktemp("base")
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXT * 5, vocab_size=600, special_tokens=["<|endoftext|>"])
    trained.save_model(str(folder))
    end = "<|endoftext|>"
    plain = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": end, "pad_token": end}
    (folder / "tokenizer_config.json").write_text(json.dumps(plain))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": ROWS}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    Qwen2ForCausalLM(Qwen2Config(**sizes, **heads)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    words = [
        "adapt", "transplant=keep", f"model.path={base}", "corpus=sample", "run=keep",
        f"runs_dir={runs}", "cache=false", "tracking=off", *stages("embeddings", "lora"),
        "corpus.max_documents=30", "train.sequence_length=128", "train.batch_tokens=512",
        "stages.embeddings.steps=2", "stages.lora.steps=2", "evaluation.tune_bytes=2000",
        "evaluation.test_bytes=2000", "correct.bootstrap_samples=20", "correct.grid=[0.5,1,1.5]",
    ]  # fmt: skip
    hpc_llm(*words)
    return runs / "keep", words


def test_the_model_goes_into_training_bit_by_bit(base, run):
    folder, _ = run
    old, new = (AutoModelForCausalLM.from_pretrained(f) for f in (base, folder / "transplant"))
    state = new.state_dict()
    assert state.keys() == old.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in old.state_dict().items())
    assert state["model.embed_tokens.weight"].shape[0] == ROWS
    ids = torch.arange(0, 60)[None]
    assert torch.equal(new(ids).logits, old(ids).logits)
    assert len(np.load(folder / "transplant/new_rows.npy")) == 0
    measures = [
        json.loads((folder / f"evaluate/{p}.json").read_text()) for p in ("base", "transplant")
    ]
    values = [found["measures"]["bpb/target"]["value"] for found in measures]
    assert values[0] == values[1]


def test_the_shards_are_those_of_the_base_tokenizer(base, run):
    folder, _ = run
    tokenizer = AutoTokenizer.from_pretrained(base)
    documents = list(read_texts(folder / "corpus/target/train.jsonl"))
    shards = open_shards(folder / "tokenizer/shards/target")
    assert len(shards) == len(documents) > 10
    end = tokenizer.eos_token_id
    for i, text in enumerate(documents):
        assert shards[i].tolist() == [end, *tokenizer.encode(text, add_special_tokens=False), end]
    found = results(folder)["tokenizer"]
    assert (found["token_ratio"], found["rows"], found["vocab_size"]) == (1, ROWS, len(tokenizer))


def test_the_result_has_the_tokenizer_of_the_base_unchanged(base, run):
    folder, _ = run
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        assert (folder / "model" / name).read_bytes() == (base / name).read_bytes()
    assert not (folder / "model/tokenizer.json").exists()
    old, new = (AutoTokenizer.from_pretrained(f) for f in (base, folder / "model"))
    assert [new.encode(text) for text in TEXT] == [old.encode(text) for text in TEXT]
    card = (folder / "model/README.md").read_text()
    assert "vocabulary-transplant" not in card
    assert "new tokenizer" not in card.lower()


def test_a_second_call_runs_nothing_and_a_trainer_setting_does_not_count(run):
    folder, words = run
    before = records(folder)
    hpc_llm(*words, "tokenizer.vocab_size=5000", "transplant.input=random")
    assert records(folder) == before
    said = hpc_llm("plan", *words[1:], "plan.format=json").stdout
    plan = json.loads(said)
    assert (plan["vocab_size_old"], plan["vocab_size_new"], plan["token_ratio"]) == (ROWS, ROWS, 1)
