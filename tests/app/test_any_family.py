"""A whole run on families without a closed form of their costs, one packed and one grouped."""

import json

import pytest
from tiny import TINY, hpc_llm
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from hpc_llm.report.gather import gather
from hpc_llm.report.sections import stage_table
from hpc_llm.rundir import RunFolder


@pytest.mark.parametrize(("family", "batching"), [("olmo2", "packed"), ("falcon", "grouped")])
def test_a_family_without_a_closed_form_runs_and_says_so(tmp_path, family, batching):
    change = f"model.architecture.model_type={family}"
    done = hpc_llm("adapt", *TINY, change, f"runs_dir={tmp_path}", "cache=false")
    folder = RunFolder(tmp_path / "example")
    records = folder.records()
    for stage in ("train/pretrain", "train/embeddings", "train/lora"):
        result = records[stage]["result"]
        assert (result["batching"], result["flops_source"]) == (batching, "counted")
        assert result["flops"] > 0
    assert ("train.batching=grouped" in done.stderr) == (batching == "grouped")
    rows = [json.loads(line) for line in folder.ledger.read_text().splitlines()]
    assert {row["flops_source"] for row in rows if row["flops"]} == {"counted"}
    table = str(stage_table(gather(folder)))
    assert table.count("counted on the model") == 3


def test_a_family_with_a_tokenizer_class_of_its_own_runs(tmp_path):
    """Beside Qwen2's config.json transformers prefers a class that drops text."""
    change = "model.architecture.model_type=qwen2"
    hpc_llm("adapt", *TINY, change, f"runs_dir={tmp_path}", "cache=false")
    model = tmp_path / "example" / "model"
    text = "Привет,  мир!\n\tdef f(): 12"
    loaded = AutoTokenizer.from_pretrained(model)
    ids = loaded(text, add_special_tokens=False)["input_ids"]
    plain = Tokenizer.from_file(str(model / "tokenizer.json"))
    assert ids == plain.encode(text, add_special_tokens=False).ids
    assert loaded.decode(ids) == text
