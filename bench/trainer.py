"""Compare a whole training run of `hpc-llm train` with plain HF Trainer and peft.

    python bench/trainer.py --model FOLDER --target FILES --source FILES --vocab-size 2048

Both sides start from the same transplanted model, read the same token shards (same vocabulary) and
train for the same number of tokens with the same optimizer, learning rates and schedule: first the
embeddings, then LoRA together with the embeddings. They take turns (A B A B ...), each in a
separate process, and each pair has its own seed. The whole process is timed, from the start of
Python to the written weights; corpus, vocabulary, transplant and evaluation are common to both and
are not timed.

The Trainer side follows common practice: documents with BOS and EOS, concatenated and cut into
blocks of 512 tokens (as in transformers' `run_clm.py`), 8 blocks per step, no padding. Documents in
a block attend to each other, which Trainer can prevent only with flash attention (on a GPU).
Without padding it takes fewer steps for the same tokens. Both adapted models (phi = 1) are then
evaluated by `hpc_llm.evaluation` on the same held-out documents.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel, Trainer, TrainingArguments, default_data_collator

from hpc_llm import config
from hpc_llm.corpus import load_texts
from hpc_llm.evaluation import delta_bpb
from hpc_llm.evaluation.bits_per_byte import Bpb, measure_bpb
from hpc_llm.methods import trains
from hpc_llm.methods.lora import LoraSettings
from hpc_llm.rundir import read_json, write_json
from hpc_llm.settings import RunConfig, StageSettings
from hpc_llm.stages.texts import encoder, first_token
from hpc_llm.surgery.loading import apply_weights, load_model, load_tokenizer
from hpc_llm.surgery.merge import attach_adapter, merge_adapter
from hpc_llm.surgery.trainable import linear_layers
from hpc_llm.tokenizer.encode import open_shards

PREPARATION = ("corpus", "tokenizer", "transplant")
STAGES = ("embeddings", "lora")


def main() -> None:
    """Run the pairs, print one line each and write the results."""
    arguments = parse()
    if arguments.trainer_side:
        train_with_trainer(arguments.trainer_side)
        return
    pairs = []
    with tempfile.TemporaryDirectory(prefix="hpc_llm_bench_") as folder:
        for seed in range(1, arguments.pairs + 1):
            pairs.append(run_pair(Path(folder), seed, arguments))
            print(line(seed, pairs[-1]), flush=True)
    result = {
        "model": arguments.model,
        "vocab_size": arguments.vocab_size,
        "steps": {"embeddings": arguments.embedding_steps, "lora": arguments.lora_steps},
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "pairs": pairs,
        "median_seconds_ratio": median(pair["seconds_ratio"] for pair in pairs),
        "median_bpb_ratio": median(pair["bpb_ratio"] for pair in pairs),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, result)
    print(
        f"median of {len(pairs)}: hpc-llm / Trainer  seconds x{result['median_seconds_ratio']:.2f}"
        f"  bits per byte x{result['median_bpb_ratio']:.4f}  -> {arguments.output}"
    )


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="hpc-llm and plain HF Trainer with peft: wall seconds and bits per byte."
    )
    parser.add_argument("--model", help="model folder or hub id")
    parser.add_argument("--target", nargs="+", help="files in the new language")
    parser.add_argument("--source", nargs="*", default=[], help="files in the model's language")
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--embedding-steps", type=int, default=120)
    parser.add_argument("--lora-steps", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/bench.json"))
    parser.add_argument("--trainer-side", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.trainer_side and not (arguments.model and arguments.target):
        parser.error("--model and --target are required; see bench/README.md")
    return arguments


def run_pair(folder: Path, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Prepare one run folder, train with both systems, evaluate both models."""
    run = folder / f"pair-{seed}"
    overrides = [
        f'model.path="{arguments.model}"',
        f"corpus.target={words(arguments.target)}",
        f"corpus.source={words(arguments.source)}",
        f"tokenizer.vocab_size={arguments.vocab_size}",
        f"stages.embeddings.steps={arguments.embedding_steps}",
        f"stages.lora.steps={arguments.lora_steps}",
        f"seed={seed}",
        f"runs_dir={folder}",
        f"run={run.name}",
        "tracking=off",
    ]
    command = [sys.executable, "-m", "hpc_llm.app"]
    for verb in PREPARATION:
        timed([*command, verb, *overrides])
    ours = timed([*command, "train", *overrides])
    theirs = timed([sys.executable, __file__, "--trainer-side", str(run)])
    return compare(run, ours, theirs)


def words(entries: list[str]) -> str:
    """Return files as a Hydra list of quoted words."""
    return "[" + ",".join(f'"{entry}"' for entry in entries) + "]"


def timed(command: list[str]) -> float:
    """Run a command and return its wall seconds; print its output if it fails."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}{' '.join(command[:4])} ...: failed")
    return seconds


def compare(run: Path, ours: float, theirs: float) -> dict[str, Any]:
    """Return seconds and bits per byte of both sides, and their ratios (hpc-llm / Trainer)."""
    cfg = config.load(run / "config.yaml")
    a = measure(our_model(run, cfg), run, cfg)
    b = measure(load_model(run / "trainer", cfg.model, cfg.train.precision), run, cfg)
    difference = delta_bpb(b, a, cfg.seed)
    return {
        "seed": cfg.seed,
        "hpc_llm": {"seconds": ours, "bpb": a.value, "tokens": sum(tokens_of(run).values())},
        "trainer": {"seconds": theirs, "bpb": b.value, **read_json(run / "trainer" / "bench.json")},
        "seconds_ratio": ours / theirs,
        "bpb_ratio": a.value / b.value,
        "bpb_difference": asdict(difference),
    }


def our_model(run: Path, cfg: RunConfig) -> PreTrainedModel:
    """Return the model trained by `hpc-llm train` in `run`, with adapters merged (phi = 1)."""
    model = load_model(run / "transplant", cfg.model, cfg.train.precision)
    apply_weights(model, [run / "train" / stage for stage in STAGES])
    return merge_adapter(attach_adapter(model, run / "train" / "lora" / "adapter"), 1.0)


def measure(model: PreTrainedModel, run: Path, cfg: RunConfig) -> Bpb:
    """Return bits per byte on the target's test documents."""
    tokenizer = load_tokenizer(run / "tokenizer", cfg.model)
    texts = load_texts(run / "corpus" / "target" / "test.jsonl")
    first = first_token(tokenizer)
    return measure_bpb(model, encoder(tokenizer), texts, cfg.evaluation, first, cfg.seed)


def tokens_of(run: Path) -> dict[str, int]:
    """Return the tokens read by `hpc-llm train` in each stage, excluding padding."""
    return {stage: read_json(run / f"train/{stage}/done.json")["tokens"] for stage in STAGES}


def line(number: int, pair: dict[str, Any]) -> str:
    """Return one pair as a line of text."""
    ours, theirs, difference = pair["hpc_llm"], pair["trainer"], pair["bpb_difference"]
    return (
        f"pair {number}: hpc-llm {ours['seconds']:.1f} s bpb {ours['bpb']:.4f}   "
        f"Trainer {theirs['seconds']:.1f} s bpb {theirs['bpb']:.4f}   "
        f"ratio {pair['seconds_ratio']:.2f}, bpb {difference['value']:+.4f} "
        f"[{difference['low']:+.4f}, {difference['high']:+.4f}]"
    )


# The Trainer side, in a separate process.


class Blocks(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """All documents of the shards, concatenated in order and cut into blocks."""

    def __init__(self, shards: Path, length: int) -> None:
        """Read the shards at `shards` into memory."""
        documents = open_shards(shards)
        ids = np.concatenate([documents[i] for i in range(len(documents))]).astype(np.int64)
        self.blocks = torch.from_numpy(ids[: len(ids) // length * length]).view(-1, length)

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return one block; Trainer shifts the labels by itself."""
        return {"input_ids": self.blocks[index], "labels": self.blocks[index]}


def train_with_trainer(run: Path) -> None:
    """Train `run/transplant` with Trainer and peft like the run; write `run/trainer`."""
    cfg = config.load(run / "config.yaml")
    blocks = Blocks(run / "tokenizer" / "shards" / "target", cfg.train.sequence_length)
    model = load_model(run / "transplant", cfg.model, cfg.train.precision)
    taken = {}
    for name, tokens in tokens_of(run).items():
        steps = max(1, round(tokens / cfg.train.batch_tokens))
        taken[name] = steps
        model = one_stage(model, cfg.stages[name], blocks, steps, cfg)
    model.save_pretrained(run / "trainer")
    total = sum(taken.values()) * cfg.train.batch_tokens
    write_json(run / "trainer" / "bench.json", {"steps": taken, "tokens": total})


def one_stage(
    model: PreTrainedModel, stage: StageSettings, blocks: Blocks, steps: int, cfg: RunConfig
) -> PreTrainedModel:
    """Train one stage and return the plain model."""
    rate = stage.peak_rate(model.config.hidden_size)
    ends = {*model.get_input_embeddings().parameters(), *model.get_output_embeddings().parameters()}
    model.requires_grad_(False)
    trained: torch.nn.Module = model
    if isinstance(stage, LoraSettings):
        lora = LoraConfig(
            r=stage.rank,
            lora_alpha=stage.alpha,
            target_modules=linear_layers(model),
            task_type="CAUSAL_LM",
        )
        trained = get_peft_model(model, lora)
    adapters = [p for p in trained.parameters() if p.requires_grad]
    for parameter in ends:
        parameter.requires_grad_(True)
    beside = rate * (trains(stage).embedding_rate if adapters else 1.0)
    groups = [{"params": list(ends), "lr": beside}, {"params": adapters, "lr": rate}]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        betas=(cfg.train.beta1, cfg.train.beta2),
        weight_decay=cfg.train.weight_decay,
        fused=True,
    )
    trainer = Trainer(
        model=trained,
        args=trainer_arguments(steps, rate, cfg),
        train_dataset=blocks,
        data_collator=default_data_collator,
        optimizers=(optimizer, None),
    )
    trainer.train()
    return trained.merge_and_unload() if stage.method == "lora" else model


def trainer_arguments(steps: int, rate: float, cfg: RunConfig) -> TrainingArguments:
    """Return the settings of the run as Trainer arguments."""
    return TrainingArguments(
        output_dir=tempfile.gettempdir(),
        max_steps=steps,
        per_device_train_batch_size=cfg.train.batch_tokens // cfg.train.sequence_length,
        learning_rate=rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": cfg.schedule.final_fraction},
        warmup_steps=round(cfg.schedule.warmup_fraction * steps),
        max_grad_norm=cfg.train.gradient_clipping,
        logging_steps=cfg.train.log_steps,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=cfg.seed,
    )


if __name__ == "__main__":
    main()
