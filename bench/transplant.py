"""Seconds and memory of a vocabulary transplant, by initialisation.

    python bench/transplant.py --rows 128000 --width 4096

The base is a Llama of one layer with random weights in bf16; embedding and LM head are not tied.
Old and new vocabulary are random words, of which `--shared` are equal. Each case is a process of
its own, from the folder of the base to the folder of the result, as the stage `transplant` works.
The vectors of the donor are random: making them is not measured, they need a training text.

Peak memory is the resident set of the whole process, Python and pages of mapped files included, in
units of both embedding matrices of the base. A case above `LIMIT` fails. CPU seconds depend less on
other load than seconds do.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from turns import resident

from hpc_llm import config
from hpc_llm.rundir import conf_files
from hpc_llm.surgery.loading import load_model, load_tokenizer
from hpc_llm.surgery.merge import save_model
from hpc_llm.surgery.outline import NotStreamed, open_outline
from hpc_llm.vocabulary.donors import Donor
from hpc_llm.vocabulary.initial import initial_names
from hpc_llm.vocabulary.rows import TrainingText
from hpc_llm.vocabulary.transplant import transplant

LIMIT = 2.5  # of both embedding matrices
LETTERS = "abcdefghijklmnopqrstuvwxyzабвгде"
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
CASE = "HPC_LLM_BENCH_CASE"


def main() -> None:
    """Run all cases and print one line each."""
    arguments = parse()
    matrices = 2 * arguments.rows * arguments.width * 2
    over = []
    with tempfile.TemporaryDirectory(prefix="hpc_llm_bench_", dir=arguments.folder) as name:
        folder = Path(name)
        write_base(folder, arguments)
        print(f"both matrices: {matrices / 2**30:.2f} GiB")
        print(f"{'initialisation':<16}{'seconds':>9}{'CPU s':>9}{'GiB':>8}{'x both':>8}")
        for case in arguments.cases:
            seconds, busy, peak = run(case, folder, arguments)
            share = peak / matrices
            print(f"{case:<16}{seconds:9.1f}{busy:9.1f}{peak / 2**30:8.2f}{share:8.2f}", flush=True)
            over += [case] * (share > LIMIT)
    if over:
        sys.exit(f"above {LIMIT} x both matrices: {', '.join(over)}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time and memory of a vocabulary transplant.")
    parser.add_argument("--rows", type=int, default=128_000, help="tokens, old and new")
    parser.add_argument("--shared", type=int, default=10_000, help="tokens of both vocabularies")
    parser.add_argument("--width", type=int, default=4096, help="of an embedding")
    parser.add_argument("--dimensions", type=int, default=300, help="of the donor's vectors")
    parser.add_argument("--cases", nargs="+", choices=initial_names(), default=initial_names())
    parser.add_argument("--overrides", nargs="*", default=[], help="transplant.KEY=VALUE")
    parser.add_argument("--folder", type=Path, help="where the models are written")
    arguments = parser.parse_args()
    if arguments.rows < 20_000 or not 2000 <= arguments.shared <= arguments.rows:
        parser.error("--rows: must be 20,000 or above; --shared: from 2,000 to --rows")
    return arguments


def write_base(folder: Path, arguments: argparse.Namespace) -> None:
    """Write the base model, the two tokenizers and the donor's vectors."""
    rows, width = arguments.rows, arguments.width
    shape = LlamaConfig(
        vocab_size=rows, hidden_size=width, intermediate_size=width * 43 // 16,
        num_hidden_layers=1, num_attention_heads=width // 128, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(shape).save_pretrained(folder / "base")
    draw = np.random.default_rng(0)
    shared = words(arguments.shared, set(), draw)
    for name in ("base", "new"):
        tokens = words(rows - len(SPECIAL), set(shared), draw)
        built = Tokenizer(models.Unigram([(t, -9.0 / len(t)) for t in tokens], unk_id=0))
        built.decoder = decoders.Fuse()
        PreTrainedTokenizerFast(tokenizer_object=built, **SPECIAL).save_pretrained(folder / name)
    np.save(folder / "vectors.npy", draw.normal(size=(rows, arguments.dimensions)))
    np.save(folder / "counts.npy", draw.zipf(1.2, rows).clip(1, 10**6))


def words(count: int, known: set[str], draw: np.random.Generator) -> list[str]:
    """Return the special tokens and `count` words: letters, pairs, and random ones of 3 to 9."""
    pairs = [one + two for one in LETTERS for two in LETTERS]
    found = dict.fromkeys([*LETTERS, *pairs, *sorted(known - set(SPECIAL.values()))])
    letters = np.array(list(LETTERS))
    while len(found) < count:
        found["".join(draw.choice(letters, draw.integers(3, 10)))] = None
    return [*reversed(SPECIAL.values()), *list(found)[:count]]


def run(case: str, folder: Path, arguments: argparse.Namespace) -> tuple[float, float, int]:
    """Run one case in a process of its own; return its seconds, CPU seconds and peak in bytes."""
    command = [sys.executable, __file__, case, str(folder), *arguments.overrides]
    environment = {**os.environ, CASE: "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}{case}: failed")
    seconds, busy, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, busy, peak


def measure(case: str, folder: Path, overrides: list[str]) -> None:
    """Print seconds, CPU seconds and peak memory of one case in this process."""
    group = [f"transplant={case}"] if case in conf_files("transplant") else []
    if not group:
        inputs = "mean" if case == "tie" else case  # it copies the input side
        group = [f"transplant.input={inputs}", f"transplant.output={case}"]
    cfg = config.typed(config.compose([*group, *overrides]))
    old, new = (load_tokenizer(folder / name, cfg.model) for name in ("base", "new"))
    began, busy = time.perf_counter(), time.process_time()
    text, result = text_of(folder), folder / "result"
    try:
        outline = open_outline(folder / "base", cfg.model, "bf16")
        outline.load_ends()
        transplant(outline.model, old, new, cfg.transplant, cfg.seed, text)
        outline.save(new, result)
    except NotStreamed:
        model = load_model(folder / "base", cfg.model, "bf16")
        transplant(model, old, new, cfg.transplant, cfg.seed, text)
        save_model(model, new, result, torch.bfloat16)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    print(json.dumps([seconds, busy, resident("VmHWM")]))


def text_of(folder: Path) -> TrainingText:
    """Return the donor's vectors, and documents of random tokens."""
    vectors, counts = (np.load(folder / f"{name}.npy") for name in ("vectors", "counts"))
    draw = np.random.default_rng(1)
    documents = [draw.integers(len(SPECIAL), len(counts), 256) for _ in range(64)]
    donor = Donor(vectors, counts, np.ones(len(counts), bool))
    return TrainingText(vectors=lambda largest: donor, documents=documents)


if __name__ == "__main__":
    if os.environ.get(CASE):
        measure(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
