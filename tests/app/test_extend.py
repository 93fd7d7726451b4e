"""transplant=extend with recipe=new_rows_first on a Qwen2 base with padded embeddings."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny import hpc_llm, records, results
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from hpc_llm.corpus import read_texts
from hpc_llm.tokenizer import open_shards

ENGLISH = ["Once upon a time there was a little girl who liked to play with her dog."] * 9
END = "<|endoftext|>"
INPUT, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with byte-level BPE of English and 40 rows of padding."""
    folder = tmp_path_factory.mktemp("base")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=alphabet, special_tokens=[END], show_progress=False
    )
    made.train_from_iterator(ENGLISH, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, pad_token=END)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    config = Qwen2Config(**sizes, **heads, vocab_size=len(tokenizer) + 40)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    words = [
        "adapt", "transplant=extend", "recipe=new_rows_first", f"model.path={base}",
        "corpus=sample", "run=extend", f"runs_dir={runs}", "cache=false", "tracking=off",
        "transplant.extend.pieces=130", "transplant.extend.min_count=3",
        "transplant.extend.multiple=32", "corpus.max_documents=60", "train.sequence_length=128",
        "train.batch_tokens=512", "stages.new_rows.steps=3", "stages.full.steps=2",
        "evaluation.tune_bytes=2000", "evaluation.test_bytes=2000", "correct.bootstrap_samples=20",
        "correct.grid=[0.5,1,1.5]",
    ]  # fmt: skip
    hpc_llm(*words)
    return runs / "extend", words


def test_old_rows_keep_their_bits_until_all_are_trained(base, run):
    folder, _ = run
    size = len(AutoTokenizer.from_pretrained(base))
    old, start = (load_file(f / "model.safetensors") for f in (base, folder / "transplant"))
    trained = load_file(folder / "train/new_rows/weights.safetensors")
    new = np.load(folder / "transplant/new_rows.npy")
    found = results(folder)["tokenizer"]
    assert new.tolist() == list(range(size, size + found["added"]))
    assert (size + found["added"]) % 32 == 0
    assert found["added"] > 90
    for name in (INPUT, OUTPUT):
        assert len(start[name]) == found["rows"] == size + found["added"]
        assert np.array_equal(start[name][:size], old[name][:size])
        moved = np.flatnonzero((trained[name] != start[name]).any(1))
        assert set(moved) <= set(new)
        assert len(moved) > len(new) / 2


def test_the_text_is_encoded_by_the_tokenizer_of_the_result(run):
    folder, _ = run
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    documents = list(read_texts(folder / "corpus/target/train.jsonl"))
    shards = open_shards(folder / "tokenizer/shards/target")
    end = tokenizer.eos_token_id
    for i, text in enumerate(documents):
        assert shards[i].tolist() == [end, *tokenizer.encode(text), end]
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert results(folder)["tokenizer"]["token_ratio"] < 0.8
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    assert model.config.eos_token_id in (None, end)


def test_a_second_call_runs_nothing_and_other_pieces_run_again(run):
    folder, words = run
    before = records(folder)
    hpc_llm(*words, "transplant.swap.protect=[Latin]", "tokenizer.vocab_size=999")
    assert records(folder) == before
    plan = json.loads(hpc_llm("plan", *words[1:], "plan.format=json").stdout)
    assert plan["token_ratio"] == results(folder)["tokenizer"]["token_ratio"]
    hpc_llm(*words, "transplant.extend.pieces=60", "--stages", "tokenizer")
    assert results(folder)["tokenizer"]["added"] < 60
