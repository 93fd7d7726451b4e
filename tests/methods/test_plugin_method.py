"""A method added by one file and one YAML in a plug-in folder: IA3, as documented."""

import json
import re
from pathlib import Path

import pytest
import torch
from tiny import adapt, hpc_llm, records, stage_of, stages
from torch.utils.flop_counter import FlopCounterMode

from hpc_llm import config
from hpc_llm.accounting import Architecture, stage_method, step_flops, trainable_parameters
from hpc_llm.methods import method_names
from hpc_llm.surgery.trainable import make_trainable

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """A plug-in folder with the files that the documentation shows."""
    folder = tmp_path / "plugins"
    for name, text in re.findall(
        r"```\w+\n# (\S+ia3\.\w+).*?\n(.*?)```", PAGE.read_text(), re.DOTALL
    ):
        path = folder / name.removeprefix("hpc_llm/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n{text}")
    monkeypatch.setenv("HPC_LLM_PLUGINS", str(folder))
    return folder


def test_it_is_listed_composed_and_counted(plugins):
    assert "ia3" in method_names()
    cfg = config.typed(config.compose([*stages("ia3"), "stages.ia3.steps=7"]))
    assert cfg.stages["ia3"].steps == 7
    from test_all_methods import llama

    found = make_trainable(llama(), stage_of("ia3"), False, 1)
    arch = Architecture.from_config(found.causal.config.to_dict())
    held = sum(parameter.numel() for parameter in found.parameters.values())
    assert held == trainable_parameters(arch, stage_method(stage_of("ia3"))) == 2 * (16 + 16)
    assert torch.equal(next(iter(found.parameters.values())).detach(), torch.ones(16, 1))


def test_its_plan_and_flops_are_those_of_the_counter(plugins):
    done = hpc_llm(
        "plan", "+method@stages.ia3=ia3", "~stages.lora", "model=llama-3.1-8b", "plan.format=json"
    )
    (row,) = [row for row in json.loads(done.stdout)["rows"] if row["stage"] == "ia3"]
    assert row["trainable"] == 32 * 2 * 1024  # keys and values of 32 layers
    from test_all_methods import IDS, llama

    found = make_trainable(llama(), stage_of("ia3"), False, 1)
    arch = Architecture.from_config(found.causal.config.to_dict())
    with FlopCounterMode(display=False) as counter:
        found.model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    counted = step_flops(arch, stage_method(stage_of("ia3")), *IDS.shape)
    assert counted.total == counter.get_total_flops()


UP_TO = "corpus,train/pretrain,tokenizer,transplant,train/embeddings,train/lora"


def test_a_run_trains_by_it_and_what_needs_a_merge_is_refused_first(plugins, tmp_path):
    words = ["+method@stages.ia3=ia3", "stages.ia3.steps=4", "run=own", "tracking=off"]
    done = adapt(tmp_path, *words, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("hpc-llm: stages.ia3.method=ia3:")
    assert not (tmp_path / "own").exists()
    adapt(tmp_path, *words, "--stages", f"{UP_TO},evaluate/base,train/ia3,evaluate/ia3")
    assert records(tmp_path / "own")[-2:] == ["train/ia3", "evaluate/ia3"]
    after = json.loads((tmp_path / "own/evaluate/ia3.json").read_text())
    assert after["measures"]["bpb/target"]["value"] > 0
