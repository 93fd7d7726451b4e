"""Time and memory until a rank can read its first rows, with and without an index of rows on disk.

    python bench/start.py --documents 1000000 10000000

Each case is a process of its own on token shards of synthetic lengths (log-normal, median 322
tokens, as stories have; the tokens are zeros in a sparse file):

- `build`: verifies the shards, packs the text and writes the index, one rank for the whole text;
- `start`: a later start, as rank 0: verifies the shards and the hashes of the index, and maps it;
- `memory`: packs the text in memory, as a rank does that can write no index.

Seconds include reading the first batch of `ROWS` rows; CPU seconds do not depend on other load.
Memory is what the process needs for itself: the peak of the resident set until the reader is ready,
or what is allocated after the first batch, whichever is more. Pages of the shards and of the index
that the batch maps are not counted: they are the page cache, which the ranks of a node share.
Seconds do not compare across machines; the ratios to `memory` do.
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
from deepspeed.runtime.data_pipeline.data_sampling.indexed_dataset import MMapIndexedDataset
from turns import begin_peak, peak_bytes, resident

from hpc_llm import config
from hpc_llm.distributed import Ranks
from hpc_llm.rundir import write_json
from hpc_llm.stages.reader import TrainingText, open_reader
from hpc_llm.tokenizer.encode import open_shards
from hpc_llm.tokenizer.shard_files import check_shards, describe_shards, part
from hpc_llm.training.data.batches import plan_batches
from hpc_llm.training.data.mixture import Reader
from hpc_llm.training.data.packing import RowKey
from hpc_llm.training.data.shards import PackedReader, count_bytes

CAPACITY, ROWS, VOCABULARY = 2048, 64, 32_000
MEDIAN, SIGMA = 322, 0.6  # of the lengths
CASES = ("build", "start", "memory")


def main() -> None:
    """Run all cases, print one line each and write the results."""
    arguments = parse()
    found = []
    columns = f"{'seconds':>9}{'CPU s':>9}{'MiB':>9}{'x CPU s':>10}{'x MiB':>8}"
    print(f"{'documents':>12}  {'case':<8}{columns}")
    for documents in arguments.documents:
        with tempfile.TemporaryDirectory(prefix="hpc_llm_bench_", dir=arguments.folder) as folder:
            write_shards(Path(folder), documents)
            measured = {case: run(case, folder) for case in CASES}
        reference = measured["memory"]
        for case, (seconds, busy, mib) in measured.items():
            ratios = f"{busy / reference[1]:10.3f}{mib / reference[2]:8.3f}"
            values = f"{seconds:9.2f}{busy:9.2f}{mib:9.1f}"
            print(f"{documents:12,}  {case:<8}{values}{ratios}", flush=True)
        found.append({"documents": documents, "cases": measured})
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.output, found)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time and memory to know the order of rows.")
    parser.add_argument("--documents", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--folder", type=Path, help="where the indexes are written")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    if min(arguments.documents) < 10_000:
        parser.error("--documents: must be 10,000 or above")
    return arguments


def write_shards(folder: Path, documents: int) -> None:
    """Write shards of documents with random lengths, as `encode_shards` does."""
    lengths = np.random.default_rng(1).lognormal(np.log(MEDIAN), SIGMA, documents)
    sizes = lengths.astype(np.int32).clip(3)
    prefix, model = folder / "text", folder / "model"
    model.write_bytes(b"the vocabulary")
    with part(prefix, ".bin").open("wb") as tokens:
        tokens.truncate(2 * int(sizes.sum(dtype=np.int64)))
    with MMapIndexedDataset.Index.writer(str(part(prefix, ".idx")), np.uint16) as index:
        index.write(sizes, np.arange(documents + 1))
    np.save(part(prefix, ".bytes.npy"), sizes * 4)
    files = {ending: part(prefix, ending) for ending in (".bin", ".idx", ".bytes.npy")}
    describe_shards(files, model, VOCABULARY, part(prefix, ".json"))


def run(case: str, folder: str) -> tuple[float, float, float]:
    """Run one case in a process of its own; return its seconds, CPU seconds and MiB."""
    command = [sys.executable, __file__, case, folder]
    environment = {**os.environ, "HPC_LLM_BENCH_CASE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}{case}: failed")
    seconds, busy, mib = json.loads(done.stdout.splitlines()[-1])
    return seconds, busy, mib


def measure(case: str, folder: Path) -> None:
    """Print seconds, CPU seconds and MiB of one case in this process."""
    words = [f"train.sequence_length={CAPACITY}", f"train.batch_tokens={CAPACITY * ROWS}"]
    cfg = config.typed(config.compose(words))
    plan = plan_batches(cfg.train, 1, None)
    text = TrainingText(vocabulary=folder / "model", shares={folder / "text": 1.0})
    begin_peak()
    allocated, began, busy = resident("RssAnon"), time.perf_counter(), time.process_time()
    reader: Reader
    if case == "memory":
        reader = in_memory(folder, RowKey(CAPACITY, cfg.seed))
    else:
        reader = open_reader(cfg, text, plan, VOCABULARY, Ranks())
    most = peak_bytes()
    reader.read(range(ROWS))
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    most = max(most, resident("RssAnon") - allocated)
    print(json.dumps([seconds, busy, most / 2**20]))


def in_memory(folder: Path, key: RowKey) -> PackedReader:
    """Return the reader of a start without an index."""
    prefix = folder / "text"
    check_shards(prefix, folder / "model", VOCABULARY)
    return PackedReader(open_shards(prefix), count_bytes(prefix), key)


if __name__ == "__main__":
    if os.environ.get("HPC_LLM_BENCH_CASE"):
        measure(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
