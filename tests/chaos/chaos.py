"""Kill runs at random moments, start them again, and compare with one that nothing ended.

`make chaos` does all of it: ZeRO 0 to 3, on one rank and on two, 20 kills each, and prints the
table of docs/fault_tolerance.md. `tests/app/test_chaos.py` does a sample.

Every kill is SIGKILL: to the command (its ranks die with it), or to one rank alone. The moments are
random, and some are sought: in the middle of a save, of an evaluation, behind the first epoch.
"""

import argparse
import contextlib
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny import TINY

from hpc_llm.accounting import Ledger

# Small enough to be quick, several epochs long, saved at every step
SETTINGS = [*TINY, "tracking=off", "checkpoint.minutes=1e-9", "stages.lora.steps=40"]
SETTINGS += ["stages.lora.max_epochs=100", "stages.embeddings.steps=20"]
SETTINGS += ["zero.extra.memory_breakdown=false"]  # one rank then uses the given stage, too
ALL_ALONG = ("time", "save", "one rank", "start-up")
LATE = ("later epoch", "evaluation")
TIMED = ("time", "one rank", "start-up")
GIVE_UP = 300.0  # seconds in which any run of this size ends


@dataclass
class Outcome:
    """What came of one run that was killed again and again."""

    variant: str
    kills: Counter[str] = field(default_factory=Counter)
    """Kills by the moment that they struck at."""
    starts: int = 0
    same_bits: bool = False
    exact_bill: bool = False
    """Useful FLOPs of the ledger equal what the stages did."""
    goodput: float = 0.0


def command(runs: Path, name: str, words: list[str]) -> list[str]:
    """The command line of a run of the tiny example."""
    own = [f"runs_dir={runs}", f"run={name}"]
    return [sys.executable, "-m", "hpc_llm.app", "adapt", *SETTINGS, *own, *words]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the weights that a run left."""
    files = ["model/model.safetensors", "train/embeddings/weights.safetensors"]
    files += ["train/lora/weights.safetensors", "train/lora/adapter/adapter_model.safetensors"]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}


def moments(kills: int) -> list[str]:
    """When to kill: all along the run, and at its end behind the first epoch and in evaluation."""
    return [*islice(cycle(ALL_ALONG), kills - len(LATE)), *LATE][:kills]


STAGES = ("train/pretrain", "train/embeddings", "train/lora")


def is_now(moment: str, folder: Path) -> bool:
    """Whether the run in `folder` is at a moment that is sought."""
    checkpoints = folder / "train/lora/checkpoints"
    if moment == "save":
        places = (folder / stage for stage in STAGES)
        return any((place / "checkpoints").glob(".step-*") for place in places)
    if moment == "later epoch":
        return any(int(path.name.split("-")[1]) >= 25 for path in checkpoints.glob("step-*"))
    if moment == "evaluation":
        done, next_one = folder / "train/lora/done.json", folder / "evaluate/lora.json"
        return done.exists() and not next_one.exists()
    return False


def written(folder: Path) -> list[str]:
    """What changes when a run gets on: stages, and checkpoints."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(map(str, [*folder.glob("**/step-*"), *folder.glob("**/*.json")]))
    return []


def killed_once(line: list[str], folder: Path, moment: str, after: float) -> str | None:
    """Start the run and kill it at `moment`; return which, None if it ended before.

    `after` seconds are those behind the first thing that it writes, or behind its start.
    """
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = written(folder)
    clock = time.monotonic() if moment == "start-up" else None
    while not is_now(moment, folder):
        if process.poll() is not None:
            return None
        if clock is None and written(folder) != before:
            clock = time.monotonic()
        if moment in TIMED and clock is not None and time.monotonic() - clock > after:
            break
        time.sleep(0.002)
    ranks = psutil.Process(process.pid).children() if moment == "one rank" else []
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        (ranks[-1] if ranks else process).send_signal(signal.SIGKILL)
    process.wait(timeout=GIVE_UP)
    return "time" if moment == "one rank" and not ranks else moment


def in_peace(line: list[str], folder: Path) -> tuple[float, float]:
    """Run once; return the seconds before it writes anything, and those behind."""
    began = time.monotonic()
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not written(folder) and process.poll() is None:
        time.sleep(0.01)
    start = time.monotonic() - began
    if process.wait(timeout=GIVE_UP) != 0:
        raise RuntimeError(f"without any kill it failed: {' '.join(line)}")
    return start, time.monotonic() - began - start


def survive(runs: Path, variant: str, words: list[str], kills: int, seed: int) -> Outcome:
    """Run `words` once in peace and once with `kills`, and compare."""
    rng = random.Random(f"{seed} {variant}")
    name, folder = f"{variant}-peace", runs / variant
    start, work = in_peace(command(runs, name, words), runs / name)
    outcome = Outcome(variant)
    for moment in moments(kills):
        most = start if moment == "start-up" else 1.5 * work / kills
        after = rng.uniform(0, most)
        outcome.starts += 1
        struck = killed_once(command(runs, variant, words), folder, moment, after)
        if struck is not None:
            outcome.kills[struck] += 1
    outcome.starts += 1
    subprocess.run(command(runs, variant, words), capture_output=True, timeout=GIVE_UP, check=True)
    outcome.same_bits = digests(folder) == digests(runs / name)
    totals = Ledger(folder / "ledger.jsonl").totals
    outcome.goodput = totals().goodput or 0.0
    outcome.exact_bill = all(
        totals(f"train/{stage}").useful.flops
        == json.loads((folder / f"train/{stage}/done.json").read_text())["flops"]
        for stage in ("embeddings", "lora")
    )
    return outcome


HEAD = (
    "| variant | kills | where | starts | weights | ledger | goodput |\n"
    "|---|---|---|---|---|---|---|"
)


def row(outcome: Outcome) -> str:
    """One line of the table."""
    where = ", ".join(f"{name} {count}" for name, count in sorted(outcome.kills.items()))
    weights = "the same bits" if outcome.same_bits else "DIFFERENT"
    bill = "exact" if outcome.exact_bill else "WRONG"
    cells = [outcome.variant, str(outcome.kills.total()), where, str(outcome.starts), weights, bill]
    return "| " + " | ".join([*cells, f"{outcome.goodput:.0%}"]) + " |"


def main() -> int:
    """Run the variants and print the table; 1 if one of them did not survive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    print(HEAD, flush=True)
    survived = True
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        for stage in asked.stages:
            for ranks in asked.ranks:
                words = [f"zero=stage{stage}", f"launch.processes={ranks}"]
                name = f"zero{stage}-ranks{ranks}"
                outcome = survive(Path(folder), name, words, asked.kills, asked.seed)
                print(row(outcome), flush=True)
                survived &= outcome.same_bits and outcome.exact_bill
    return 0 if survived else 1


if __name__ == "__main__":
    sys.exit(main())
