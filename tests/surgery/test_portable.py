"""Saved models in transformers 4: the keys that it reads, and the whole model in a second venv.

HPC_LLM_TRANSFORMERS_4 names a Python with transformers 4.57 and torch; without it the last test is
skipped.
"""

import json
import os
import subprocess

import families
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpc_llm.surgery.merge import save_model

TEXT = "ab <|x|> б привет"
PROGRAM = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, text = sys.argv[1:]
tokens = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
model = AutoModelForCausalLM.from_pretrained(folder).eval()
with torch.no_grad():
    logits = model(input_ids=torch.arange(4, 40)[None]).logits
print(json.dumps([tokens, logits.double().flatten().tolist()]))
"""
ROPES = {
    "default": {"rope_type": "default", "rope_theta": 500_000.0},
    "yarn": {
        "rope_type": "yarn", "rope_theta": 500_000.0, "factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}  # fmt: skip


@pytest.fixture(params=ROPES)
def saved(request, tmp_path):
    """A tiny Llama and its tokenizer with an extra special token, saved as a run saves them."""
    config = families.tiny_config("llama")
    config.rope_parameters = ROPES[request.param]
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    tokenizer = families.tokenizer(families.ROWS, 0)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|x|>"]})
    model.resize_token_embeddings(len(tokenizer))
    save_model(model, tokenizer, tmp_path, torch.float32)
    return tmp_path, model, tokenizer


def test_the_folder_names_what_version_4_reads(saved):
    folder, model, tokenizer = saved
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 500_000
    assert ("rope_scaling" in config) == (config["rope_parameters"]["rope_type"] != "default")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(settings.get("extra_special_tokens"), list)
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert again.config.rope_parameters == model.config.rope_parameters
    torch.testing.assert_close(families.logits(again), families.logits(model))
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    assert set(loaded.all_special_tokens) == set(tokenizer.all_special_tokens)


def test_version_4_gives_the_same_tokens_and_logits(saved):
    python = os.environ.get("HPC_LLM_TRANSFORMERS_4")
    if python is None:
        pytest.skip("needs a second environment: set HPC_LLM_TRANSFORMERS_4=PYTHON")
    folder, model, tokenizer = saved
    command = [python, "-c", PROGRAM, str(folder), TEXT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    tokens, found = json.loads(done.stdout.splitlines()[-1])
    with torch.no_grad():
        expected = model.eval()(input_ids=torch.arange(4, 40)[None]).logits.double().flatten()
    assert tokens == tokenizer(TEXT)["input_ids"]
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected)
