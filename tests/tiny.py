"""The embedded example made tiny, and the command line as a user runs it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

from forked import forked

TINY = [
    "experiment=example",
    "cache=false",  # a test that compares two runs needs both
    "corpus.max_documents=60",
    "model.architecture.hidden_size=32",
    "model.architecture.intermediate_size=64",
    "model.architecture.num_hidden_layers=2",
    "model.architecture.vocab_size=512",
    "tokenizer.vocab_size=512",
    "train.sequence_length=256",
    "train.batch_tokens=1024",
    "train.log_steps=2",
    "stages.pretrain.steps=8",
    "stages.embeddings.steps=8",
    "stages.lora.steps=12",
    "stages.lora.learning_rate=0.003",  # at the default, so few steps without warm-up are chaotic
    "evaluation.tune_bytes=4000",
    "correct.grid=[0.5,1.0,1.5]",
    "correct.bootstrap_samples=50",
]


def hpc_llm(*arguments, check=True, **environment):
    """Run `hpc-llm` as a process of its own; return what it said and its exit code.

    A fork that has imported torch already; with variables of its own a new process.
    """
    variables = {**os.environ, "WANDB_SILENT": "true", **environment}
    if environment:
        command = [sys.executable, "-m", "hpc_llm.app", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=600, check=False, env=variables
        )
    else:
        done = forked("hpc_llm.app", *arguments, environment=variables)
    if check:
        assert done.returncode == 0, done.stderr[-4000:]
    return done


def adapt(runs: Path, *overrides, check=True, **environment):
    """Run the tiny example in `runs`."""
    words = ["adapt", *TINY, f"runs_dir={runs}", *overrides]
    return hpc_llm(*words, check=check, **environment)


def summary(folder: Path):
    """Read the summary of a run folder."""
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def records(folder: Path):
    """Return the names in the record, in order."""
    lines = (folder / "record.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["stage"] for line in lines]


def results(folder: Path):
    """Return the result of each stage in the record."""
    lines = (folder / "record.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["stage"]: record["result"] for record in map(json.loads, lines)}


def stages(*names: str) -> list[str]:
    """Return the overrides of a recipe of these stages: methods, and pretrain from scratch."""
    words = ["recipe=none"]
    for name in names:
        words.append(f"+method@stages.{name}={'full' if name == 'pretrain' else name}")
    return words + ["stages.pretrain.from=scratch"] * ("pretrain" in names)


@cache
def settings(*overrides: str):
    """Return the typed configuration of these overrides; composing it takes half a second."""
    from hpc_llm import config

    return config.typed(config.compose(list(overrides)))


def stage_of(method: str, **changes):
    """Return the default settings of a stage that trains by `method`, with some changed."""
    return replace(settings(*stages(method)).stages[method], **changes)
