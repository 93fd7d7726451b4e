"""Check a GPU with one command: the tests marked `gpu`, then speed and memory of training steps.

    make gpu-check                      # about 15 minutes on one H100
    make gpu-check GPU="--models 1b"    # only the smaller model

Each case is a process of its own, one after another, so each has the whole device. The table has
the model FLOPs as a fraction of the device's published peak (MFU, Chowdhery et al. 2022, appendix
B) and of a large matrix product measured just before, and the peak of torch's allocator. A case
that does not fit is a line, not an error.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from train import Contest, Failed, machine, prepare_environment, spread, write

GIB = 2**30
VARIANTS = {
    "default": (),
    "recompute=selective": ("train.recompute=selective",),
    "recompute=full": ("train.recompute=full",),
    "compile": ("train.compile=true",),
    "recompute=full, compile": ("train.recompute=full", "train.compile=true"),
}
HEAD = (
    "| model | method | settings | tokens/s | MFU | of matmul peak | peak memory, GiB |",
    "|---|---|---|---|---|---|---|",
)


def main() -> int:
    """Run the tests, then the cases; print one table and write the results."""
    arguments = parse()
    prepare_environment()
    from cases import prepare_text

    failed = 0 if arguments.no_tests else run_tests()
    prepare_text(arguments.folder, arguments.text, pieces=2_000)
    rows = list(HEAD)
    results: list[dict[str, Any]] = []
    for case, name in cases(arguments):
        found = measured(case, name, arguments.repeats)
        results.append(found)
        rows.append(row(found))
        print(rows[-1], flush=True)
        write(arguments.output, {"machine": machine(), "results": results})
    print("\n".join(["", title(), "", *rows, "", f"-> {arguments.output}"]))
    if failed:
        print("The tests failed: see above. The figures may be those of wrong computations.")
    return failed


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Check a GPU: correctness, speed, memory.")
    add = parser.add_argument
    add("--models", nargs="+", default=["1b", "8b"], help="15m 60m 1b 8b")
    add("--methods", nargs="+", default=["full", "embeddings", "lora"])
    add("--precision", default="bf16", choices=("fp32", "bf16", "fp16"))
    add("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    add("--steps", type=int, default=3, help="optimizer steps per measurement")
    add("--repeats", type=int, default=3, help="measurements, after a warm-up")
    add("--text", default="sample:ru", help="file to train on; default: the sample")
    add("--folder", type=Path, default=Path("runs/bench"), help="folder for the token shards")
    add("--output", type=Path, default=Path("runs/bench/gpu.json"))
    add("--no-tests", action="store_true", help="only measure")
    return parser.parse_args()


def run_tests() -> int:
    """Run the tests that need a GPU; return pytest's exit code."""
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-m", "gpu", "-rs", "-n", "0"]
    return subprocess.run(command, check=False).returncode


def cases(arguments: argparse.Namespace) -> Iterator[tuple[Any, str]]:
    """Yield the cases with the names of their variants."""
    from cases import Case

    for model in arguments.models:
        for method in arguments.methods:
            for name in arguments.variants:
                yield (
                    Case(
                        model=model,
                        method=method,
                        precision=arguments.precision,
                        folder=str(arguments.folder.resolve()),
                        threads=min(8, len(os.sched_getaffinity(0))),
                        steps=arguments.steps,
                        overrides=VARIANTS[name],
                    ),
                    name,
                )


def measured(case: Any, name: str, repeats: int) -> dict[str, Any]:
    """Train a case alone; return its figures, or the reason that it did not run."""
    from peak import measured_peak

    found: dict[str, Any] = {**case.key(), "variant": name}
    system = ":".join(["hpc_llm", ",".join(case.overrides)]).rstrip(":")
    try:
        contest = Contest(case, system)
        contest.ready()
        contest.turn()
        turns = [contest.turn() for _ in range(repeats)]
        contest.end([])
    except Failed as error:
        return {**found, "failed": str(error).removeprefix(f"{system}: ")}
    return {
        **found,
        "seconds_per_step": [turn["seconds"] / case.steps for turn in turns],
        "flops_per_step": case.step_flops((repeats + 1) * case.steps),
        "matmul_flops_per_second": measured_peak(case.precision),
        "peak_flops_per_second": published_peak(case.precision),
        "peak_bytes": max(turn["peak"] for turn in turns),
    }


def published_peak(precision: str) -> float | None:
    """Return the peak of this GPU in `conf/hardware`, FLOP/s; None if it is not listed."""
    from hpc_llm.accounting import find_device
    from hpc_llm.training.process_group import device_name

    name = device_name()
    listed = find_device(name) if name else None
    return listed.peak_flops_per_second(precision) if listed else None


def row(found: dict[str, Any]) -> str:
    """Return a line of the table: medians, with the lowest and highest measurement in brackets."""
    named = f"| {found['model']} | {found['method']} | {found['variant']} "
    if "failed" in found:
        return f"{named}| {found['failed']} | | | |"
    seconds = found["seconds_per_step"]
    reached = found["flops_per_step"] / median(seconds)
    peak = found["peak_flops_per_second"]
    rates = [found["tokens_per_step"] / s for s in seconds]
    return (
        f"{named}| {spread(rates, '.0f')} | {f'{reached / peak:.1%}' if peak else 'n/a'} "
        f"| {reached / found['matmul_flops_per_second']:.1%} | {found['peak_bytes'] / GIB:.1f} |"
    )


def title() -> str:
    """Return the machine in one line."""
    known = machine()
    return ", ".join(str(known[key]) for key in ("gpu", "cpu", "torch", "date") if known[key])


if __name__ == "__main__":
    sys.exit(main())
