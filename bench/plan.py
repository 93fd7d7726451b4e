"""Wall time of whole `hpc-llm plan` commands, compared with bare Python on the same machine.

    python bench/plan.py

Each command is timed as a separate process, from the start of Python to its last line. They take
turns, `--repeats` times, so that background load affects all equally. Seconds do not compare across
machines; ratios to `python -c "import hydra"`, which every command with a Hydra configuration
needs, do. A cold start has no bytecode (`PYTHONPYCACHEPREFIX` is an empty folder), like the first
call after an installation, but with a warm disk cache.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from hpc_llm.rundir import write_json

PLAN = [sys.executable, "-m", "hpc_llm.app", "plan"]
CLUSTER = ["cluster=a100_4x8", "recipe=two_stage"]
SOLAR = [*PLAN, "model=solar-10.7b", *CLUSTER]
REFERENCE = "import hydra"
COLD = "solar-10.7b, cold"
COMMANDS = {
    "pass": [sys.executable, "-c", "pass"],
    REFERENCE: [sys.executable, "-c", REFERENCE],
    "example": [*PLAN, "experiment=example"],
    "solar-10.7b": SOLAR,
    "mixtral-8x7b": [*PLAN, "model=mixtral-8x7b", *CLUSTER],
    "llama-3.1-405b": [*PLAN, "model=llama-3.1-405b", *CLUSTER],
    "plan.table=training": [*PLAN, "plan.table=training"],
    COLD: SOLAR,
}


def main() -> None:
    """Time all commands in turn, print one line each and write the results."""
    arguments = parse()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for name in COMMANDS:
        if name != COLD:
            timed(name)  # warm-up, excluded from the results
    for _ in range(arguments.repeats):
        for name, times in seconds.items():
            times.append(timed(name))
    reference = median(seconds[REFERENCE])
    print(f"{'seconds':<22}{'median':>8}{'lowest':>8}{'highest':>8}   x {REFERENCE}")
    for name, times in seconds.items():
        middle = median(times)
        print(
            f"{name:<22}{middle:8.3f}{min(times):8.3f}{max(times):8.3f}   {middle / reference:.2f}"
        )
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.output, {"python": sys.version, "seconds": seconds})


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Wall time of whole commands `hpc-llm plan`.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON file for every single time")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats: must be 1 or above")
    return arguments


def timed(name: str) -> float:
    """Run a command and return its wall seconds; print its output if it fails."""
    with tempfile.TemporaryDirectory(prefix="hpc_llm_bench_") as folder:
        environment = dict(os.environ)
        if name == COLD:
            environment["PYTHONPYCACHEPREFIX"] = folder
        began = time.perf_counter()
        done = subprocess.run(
            COMMANDS[name], capture_output=True, text=True, env=environment, check=False
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}{name}: failed")
    return seconds


if __name__ == "__main__":
    main()
