"""Compare the whole job, from text to an adapted model, with HF Trainer and peft.

    python bench/whole_job.py --model FOLDER --target FILES --source FILES --bpb 0.90

Both sides start from the same base model and the same training documents. `hpc-llm adapt` runs its
whole recipe: vocabulary, transplant, embeddings, LoRA, merging factor and all evaluations. The
other side does what a user of transformers does in few lines: `train_new_from_iterator` on the
base's tokenizer, rows of equal tokens copied and the others set to the mean row, `datasets.map`,
blocks of equal length, LoRA and embeddings trained together by Trainer, an evaluation before and
after, a merged model. Its learning rate is the best of `--rates`.

For each side the shortest training of `--steps` whose model reaches `--bpb` bits per byte on the
held-out documents is found with seed 1. These two jobs are then timed in turns (A B A B ...), as
whole processes. Bits per byte are measured by `hpc_llm.evaluation` afterwards, not timed.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from trainer import timed, words

from hpc_llm import config
from hpc_llm.corpus import load_texts
from hpc_llm.evaluation.bits_per_byte import measure_bpb
from hpc_llm.rundir import read_json, write_json
from hpc_llm.stages.texts import encoder, first_token
from hpc_llm.surgery.loading import load_model, load_tokenizer

STEPS = (50, 75, 100, 150, 200, 300, 400, 600, 800, 1200)
LENGTH = 512


def main() -> None:
    """Find the shortest job of each side, repeat both in turns, print and write the results."""
    arguments = parse()
    if arguments.other_side:
        adapt_with_trainer(arguments.other_side)
        return
    with tempfile.TemporaryDirectory(prefix="hpc_llm_whole_") as folder:
        job = Job(Path(folder), arguments)
        jobs = {"hpc_llm": job.ours, "trainer": job.theirs}
        steps = {side: shortest(run, arguments) for side, run in jobs.items()}
        turns = []
        for seed in range(1, arguments.repeats + 1):
            for side, run in jobs.items():
                turns.append({"side": side, "seed": seed, **run(steps[side], seed)})
                print(line(turns[-1]), flush=True)
    result = {"bpb": arguments.bpb, "threads": torch.get_num_threads(), "turns": turns}
    result["seconds_ratio"] = ratio(turns)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, result)
    print(f"hpc-llm / Trainer: seconds x{result['seconds_ratio']:.2f}  -> {arguments.output}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Whole jobs of hpc-llm and HF Trainer with peft.")
    add = parser.add_argument
    add("--model", help="folder of the base model")
    add("--target", nargs="+", help="files in the new language")
    add("--source", nargs="*", default=[], help="files in the model's language")
    add("--vocab-size", type=int, default=2048)
    add("--bpb", type=float, default=0.90, help="bits per byte that a job must reach")
    add("--steps", type=int, nargs="+", default=STEPS, help="lengths to try, ascending")
    add("--rates", type=float, nargs="+", default=[0.003, 0.01, 0.02], help="of Trainer")
    add("--overrides", nargs="*", default=[], help="settings of hpc-llm")
    add("--repeats", type=int, default=3)
    add("--output", type=Path, default=Path("runs/whole_job.json"))
    add("--other-side", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.other_side and not (arguments.model and arguments.target):
        parser.error("--model and --target are required; see bench/README.md")
    return arguments


def line(turn: dict[str, Any]) -> str:
    """Return a job as a line of text."""
    rate = f"  rate {turn['rate']:g}" if "rate" in turn else ""
    parts = f"{turn['side']:8} seed {turn['seed']}  {turn['steps']} steps{rate}"
    return f"{parts}  {turn['seconds']:.1f} s  bits per byte {turn['bpb']:.4f}"


def ratio(turns: list[dict[str, Any]]) -> float:
    """Return the median over the rounds of seconds of hpc-llm / seconds of Trainer."""
    pairs = zip(turns[::2], turns[1::2], strict=True)
    return median(ours["seconds"] / theirs["seconds"] for ours, theirs in pairs)


def shortest(run: Any, arguments: argparse.Namespace) -> int:
    """Return the fewest steps with which a job reaches the goal."""
    for steps in arguments.steps:
        turn = run(steps, 1)
        print(line({"side": run.__name__, "seed": 1, **turn}), flush=True)
        if turn["bpb"] <= arguments.bpb:
            return int(steps)
    sys.exit(f"{run.__name__}: no job of --steps reaches {arguments.bpb} bits per byte")


class Job:
    """The two jobs on the same documents."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        """`folder` gets the runs."""
        self.folder, self.arguments, self.best_rate = folder, arguments, 0.0

    def ours(self, steps: int, seed: int) -> dict[str, Any]:
        """Run `hpc-llm adapt` with `steps` steps of LoRA and a third as many of embeddings."""
        arguments = self.arguments
        run = self.folder / f"ours-{steps}-{seed}-{len(list(self.folder.iterdir()))}"
        overrides = [
            f'model.path="{arguments.model}"',
            f"corpus.target={words(arguments.target)}",
            f"corpus.source={words(arguments.source)}",
            f"tokenizer.vocab_size={arguments.vocab_size}",
            f"stages.embeddings.steps={steps // 3}",
            f"stages.lora.steps={steps}",
            f"seed={seed}",
            f"runs_dir={self.folder}",
            f"run={run.name}",
            "cache=false",
            *arguments.overrides,
        ]
        seconds = timed([sys.executable, "-m", "hpc_llm.app", "adapt", *overrides])
        return {"steps": steps, "seconds": seconds, "bpb": bits_per_byte(run / "model", run)}

    def theirs(self, steps: int, seed: int) -> dict[str, Any]:
        """Run the Trainer side on the documents of the first run of `ours`."""
        first = min(self.folder.glob("ours-*"), key=lambda path: path.stat().st_mtime)
        rates = [self.best_rate] if self.best_rate else self.arguments.rates
        found = [self._theirs(first, steps, seed, rate) for rate in rates]
        best = min(found, key=lambda turn: turn["bpb"])
        if best["bpb"] <= self.arguments.bpb:
            self.best_rate = best["rate"]
        return best

    def _theirs(self, run: Path, steps: int, seed: int, rate: float) -> dict[str, Any]:
        where = self.folder / "trainer"
        where.mkdir(exist_ok=True)
        task = {"run": str(run), "steps": steps, "rate": rate, "seed": seed}
        write_json(where / "task.json", task | {"vocab_size": self.arguments.vocab_size})
        seconds = timed([sys.executable, __file__, "--other-side", str(where)])
        found = bits_per_byte(where / "model", run)
        return {"steps": steps, "rate": rate, "seconds": seconds, "bpb": found}


def bits_per_byte(model_folder: Path, run: Path) -> float:
    """Return the bits per byte of a model on the target's test documents of `run`."""
    cfg = config.load(run / "config.yaml")
    model = load_model(model_folder, cfg.model, cfg.train.precision)
    tokenizer = load_tokenizer(model_folder, cfg.model)
    texts = load_texts(run / "corpus" / "target" / "test.jsonl")
    first = first_token(tokenizer)
    return measure_bpb(model, encoder(tokenizer), texts, cfg.evaluation, first, cfg.seed).value


# The Trainer side, in a process of its own. It uses none of hpc_llm's training code.


def adapt_with_trainer(where: Path) -> None:
    """Adapt the base model as `where/task.json` says; write `where/model`."""
    from datasets import load_dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, default_data_collator

    task = read_json(where / "task.json")
    run = Path(task["run"])
    base = config.load(run / "config.yaml").model.path
    torch.manual_seed(task["seed"])
    files = {part: str(run / f"corpus/target/{part}.jsonl") for part in ("train", "test")}
    documents = load_dataset("json", data_files=files, cache_dir=str(where / "cache"))
    old = AutoTokenizer.from_pretrained(base)
    new = old.train_new_from_iterator(batches(documents["train"]), task["vocab_size"])
    model = AutoModelForCausalLM.from_pretrained(base)
    replace_rows(model, old, new)

    def blocks(texts: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        ids = [i for own in new(texts["text"])["input_ids"] for i in (*own, new.eos_token_id)]
        cut = [ids[i : i + LENGTH] for i in range(0, len(ids) - LENGTH, LENGTH)]
        return {"input_ids": cut, "labels": cut}

    data = documents.map(blocks, batched=True, remove_columns=documents["train"].column_names)
    lora = LoraConfig(r=32, lora_alpha=64, target_modules="all-linear", task_type="CAUSAL_LM")
    trained = get_peft_model(model, lora)
    for parameter in model.get_input_embeddings().parameters():
        parameter.requires_grad_(True)
    trainer = Trainer(
        model=trained,
        args=trainer_arguments(where, task),
        train_dataset=data["train"],
        eval_dataset=data["test"],
        data_collator=default_data_collator,
    )
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()
    trained.merge_and_unload().save_pretrained(where / "model")
    new.save_pretrained(where / "model")


def batches(documents: Any) -> Iterator[list[str]]:
    """Yield the texts, a thousand at a time."""
    for start in range(0, len(documents), 1000):
        yield documents[start : start + 1000]["text"]


def replace_rows(model: Any, old: Any, new: Any) -> None:
    """Copy the rows of tokens that both vocabularies have; set the others to the mean row."""
    rows, known = model.get_input_embeddings().weight.data, old.get_vocab()
    replaced = rows.mean(0, keepdim=True).repeat(len(new), 1)
    for token, number in new.get_vocab().items():
        if token in known:
            replaced[number] = rows[known[token]]
    model.resize_token_embeddings(len(new), mean_resizing=False)
    model.get_input_embeddings().weight.data.copy_(replaced)
    model.tie_weights()


def trainer_arguments(where: Path, task: dict[str, Any]) -> Any:
    """Return the settings of Trainer: 8 blocks of 512 tokens a step, cosine, warm-up."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(where / "output"),
        max_steps=task["steps"],
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        learning_rate=task["rate"],
        lr_scheduler_type="cosine",
        warmup_steps=max(1, task["steps"] // 20),
        adam_beta2=0.95,
        max_grad_norm=1.0,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=task["seed"],
    )


if __name__ == "__main__":
    main()
