"""One rank that trains tiny models one after the other: `python train_tiny.py TASKS`.

TASKS is a JSON list of {"folder", "zero", "method", "micro", "stop_at", "precision", "poison"}.
Prints a JSON list with the losses and the hash of each; with `stop_at` a task is asked to stop
when it is about to make that step, saves, and its entry is null; `poison` puts NaN into a weight.
"""

import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hpc_llm import config
from hpc_llm.distributed import detect_ranks
from hpc_llm.errors import Diverged, Stopped
from hpc_llm.surgery.trainable import make_trainable
from hpc_llm.training import process_group
from hpc_llm.training.batches import plan_batches
from hpc_llm.training.job import Hooks, StageJob
from hpc_llm.training.loop import train
from hpc_llm.training.shards import PackedReader

STEPS = 6


class Documents:
    """Random documents in memory, read as an indexed data set is."""

    def __init__(self):
        drawn = np.random.default_rng(5)
        self.documents = [drawn.integers(3, 64, n) for n in drawn.integers(2, 40, 60)]
        self.sizes = np.array([len(d) for d in self.documents])

    def __len__(self):
        return len(self.documents)

    def get(self, index, offset, length):
        return self.documents[index][offset : offset + length]


def build(task):
    """Return the job that `task` describes."""
    cfg = config.typed(config.compose(["experiment=example"]))
    shared = replace(
        cfg.train, sequence_length=32, batch_tokens=256, micro_batch_tokens=task.get("micro"),
        log_steps=100 if task.get("poison") else 1,
        precision=task.get("precision", "fp32"), weight_decay=0.1,
        checkpoint_minutes=1e-9 if task.get("poison") else 10,
    )  # fmt: skip
    torch.manual_seed(0)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[shared.precision]
    architecture = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        vocab_size=64, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(architecture).to(dtype)
    if task.get("poison"):
        torch.nn.init.constant_(model.lm_head.weight[:1], float("nan"))
    stage = replace(shared.stage(task["method"]), rank=4)
    documents = Documents()
    ranks = detect_ranks(os.environ)
    process_group.start(ranks, 1)
    return StageJob(
        name=task["method"], trainable=make_trainable(model, stage, False, seed=1),
        reader=PackedReader(documents, documents.sizes, 32, seed=1),
        plan=plan_batches(shared, ranks.world_size, 32),
        steps=STEPS, peak_rate=0.01,
        stage=stage, train=shared, zero=replace(cfg.zero, stage=task["zero"]),
        schedule=cfg.schedule, ranks=ranks, seed=1, folder=Path(task["folder"]), fingerprint="x",
    )  # fmt: skip


def result(task):
    """Train one task; return its losses and the hash of its weights, or None when stopped."""
    job = build(task)
    losses, asked = [], [0]

    def stop_reason():
        asked[0] += 1
        return "asked" if asked[0] == task.get("stop_at", 0) else None

    hooks = Hooks(
        log=lambda progress, metrics: losses.append(metrics["train/loss"]),
        resumed=lambda progress: None,
        step_flops=lambda tokens, squares: tokens,
        stop_reason=stop_reason,
    )
    try:
        trained = train(job, hooks)
    except Stopped:
        return None
    except Diverged as error:
        return {"error": str(error)}
    digest = hashlib.sha256()
    for name, value in sorted({**trained.weights, **trained.adapters}.items()):
        digest.update(name.encode())
        digest.update(value.float().numpy().tobytes())
    return {"losses": losses, "hash": digest.hexdigest()}


if __name__ == "__main__":
    results = [result(task) for task in json.loads(sys.argv[1])]
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(results))
    process_group.end()
