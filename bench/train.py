"""Compare training steps of hpc-llm, HF Trainer (with peft), plain PyTorch and plain DeepSpeed.

    make bench BENCH="--models 15m --methods full --repeats 3"

or `python bench/train.py ...`. Each system is a separate process, with the same model, sequences,
precision and tokens per step. All are started first and then take turns of a few steps
(A B C D A B C D ...), so that background load affects all equally; ratios are taken within a round.
All other processes wait during a turn. Fractions of the peak refer to a matrix product measured in
each round.
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from itertools import product
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # if hpc_llm is not installed

METHODS = ("full", "embeddings", "lora")
SYSTEMS = ("hpc_llm", "trainer", "torch", "deepspeed")
BASE = "trainer"
MIB = 2**20


def main() -> None:
    """Run the cases, print one line per system and write the results."""
    arguments = parse()
    prepare_environment()
    from cases import Case, prepare_text
    from peak import measured_peak

    prepare_text(arguments.folder, arguments.text, arguments.pieces)
    results = read(arguments.output) if arguments.add else []
    for model, method, precision in product(
        arguments.models, arguments.methods, arguments.precisions
    ):
        case = Case(
            model=model,
            method=method,
            precision=precision,
            folder=str(arguments.folder.resolve()),
            threads=arguments.threads,
            steps=arguments.steps,
            rows=arguments.rows,
            micro=arguments.micro_rows,
        )
        try:
            results += compare(case, arguments, measured_peak)
        except Failed as error:
            sys.exit(str(error))
        write(arguments.output, {"machine": machine(), "text": arguments.text, "results": results})
    print(f"\n{table(results)}\n\n-> {arguments.output}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare training steps of several systems.")
    add = parser.add_argument
    add("--models", nargs="+", default=["15m", "60m"], help="15m 60m 1b 8b")
    add("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    add("--precisions", nargs="+", default=["fp32", "bf16"], choices=("fp32", "bf16", "fp16"))
    add(
        "--systems",
        nargs="+",
        default=list(SYSTEMS),
        help="hpc_llm trainer torch deepspeed; hpc_llm:KEY=VALUE,... with other settings",
    )
    add("--steps", type=int, default=2, help="optimizer steps per turn")
    add("--repeats", type=int, default=5, help="turns per system, after a warm-up turn")
    add("--rows", type=int, help="sequences per step; default: that of the model")
    add("--micro-rows", type=int, help="sequences per forward pass; default: all")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    add("--text", default="sample:ru", help="file to train on; default: the sample")
    add(
        "--pieces",
        type=int,
        default=2_000,
        help="size of the vocabulary (the model has 32,000 rows)",
    )
    add("--folder", type=Path, default=Path("runs/bench"), help="folder for the token shards")
    add("--output", type=Path, default=Path("runs/bench/train.json"))
    add("--add", action="store_true", help="append to the results in --output")
    add("--quick", action="store_true", help="smoke test: one case, few steps")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.models, arguments.methods, arguments.precisions = ["15m"], ["full"], ["fp32"]
        arguments.steps, arguments.repeats, arguments.rows = 1, 2, 4
    return arguments


def prepare_environment() -> None:
    """Set the environment of all processes, before any of them imports torch."""
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as hpc-llm sets it
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    if shutil.which("nvidia-smi") is None:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def compare(case: Any, arguments: argparse.Namespace, measured_peak: Any) -> list[dict[str, Any]]:
    """Train one case with all systems in turns; return one result per turn and system."""
    contests = [Contest(case, system) for system in arguments.systems]
    steps = (arguments.repeats + 1) * case.steps
    flops, results = case.step_flops(steps), []
    for contest in contests:
        contest.ready()
    for turn in range(arguments.repeats + 1):
        load, peak = os.getloadavg()[0], measured_peak(case.precision)
        for contest in contests:
            result = contest.turn()
            if turn:  # the first is a warm-up
                results.append(
                    {
                        **case.key(),
                        "system": contest.system,
                        "round": f"{contests[0].process.pid}.{turn}",
                        "seconds_per_step": result["seconds"] / case.steps,
                        "engine_share": result["inside"] / result["seconds"],
                        "peak_bytes": result["peak"],
                        "flops_per_step": flops,
                        "matmul_flops_per_second": peak,
                        "load": load,
                    }
                )
    for contest in contests:
        contest.end(results)
    print(table(results), flush=True)
    return results


class Failed(Exception):
    """A system that cannot run; says why."""


class Contest:
    """One system in a separate process."""

    def __init__(self, case: Any, system: str) -> None:
        """Start `system`, which may include settings: hpc_llm:zero=stage0."""
        self.system = system
        name, _, settings = system.partition(":")
        case = replace(case, overrides=tuple(settings.split(",")) if settings else ())
        self.pipe: Connection
        self.pipe, theirs = multiprocessing.Pipe()
        spawn = multiprocessing.get_context("spawn")
        self.process: BaseProcess = spawn.Process(target=_contest, args=(theirs, case, name))
        with _environment_of(name):
            self.process.start()
        theirs.close()

    def ready(self) -> None:
        """Wait until the model is built."""
        self._receive()

    def turn(self) -> dict[str, float]:
        """Run the steps of one turn."""
        self.pipe.send("go")
        return self._receive()

    def end(self, results: list[dict[str, Any]]) -> None:
        """Get the final loss and add it to the results."""
        self.pipe.send("end")
        loss = self._receive()
        for result in results:
            if result["system"] == self.system:
                result["loss_after"] = loss
        self.process.join()

    def _receive(self) -> Any:
        try:
            answer = self.pipe.recv()
            if isinstance(answer, Failed):
                raise answer
            return answer
        except EOFError:
            raise Failed(f"{self.system}: its process failed, see above") from None


@contextmanager
def _environment_of(system: str) -> Iterator[None]:
    """Set hpc-llm's malloc settings for hpc_llm on a CPU; the others use the defaults."""
    from hpc_llm.app.heap import TUNABLES

    if system != "hpc_llm" or "DS_ACCELERATOR" not in os.environ:
        yield
        return
    with mock.patch.dict(os.environ, GLIBC_TUNABLES=TUNABLES):
        yield


def _contest(pipe: Connection, case: Any, system: str) -> None:
    import torch
    from systems import contest

    try:
        contest(pipe, case, system)
    except torch.OutOfMemoryError:
        pipe.send(Failed(f"{system}: out of memory"))


def table(results: list[dict[str, Any]]) -> str:
    """Return the medians as a Markdown table."""
    lines = [
        "| model | method | precision | system | tokens/s | x Trainer | of matmul peak "
        "| peak memory, MiB | x Trainer | overhead | loss after |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for result in results:
        key = tuple(result[k] for k in ("model", "method", "precision", "tokens_per_step"))
        groups.setdefault((*key, result["system"]), []).append(result)
    for (*case, system), turns in groups.items():
        lines.append(row(case, system, turns, groups.get((*case, BASE), [])))
    return "\n".join(lines)


def row(
    case: list[Any], system: str, turns: list[dict[str, Any]], base: list[dict[str, Any]]
) -> str:
    """Return one line: medians, with the lowest and highest turn in brackets.

    `overhead` is data loading, synchronisation, guards, tracking and cost accounting.
    """
    model, method, precision, tokens = case
    rates = [tokens / turn["seconds_per_step"] for turn in turns]
    shares = [
        turn["flops_per_step"] / turn["seconds_per_step"] / turn["matmul_flops_per_second"]
        for turn in turns
    ]
    peak = max(turn["peak_bytes"] for turn in turns)
    seconds = {turn["round"]: turn["seconds_per_step"] for turn in base}
    faster = [
        seconds[turn["round"]] / turn["seconds_per_step"]
        for turn in turns
        if turn["round"] in seconds
    ]
    beside = median(1 - turn["engine_share"] for turn in turns)
    smaller = peak / max(turn["peak_bytes"] for turn in base) if base else None
    return (
        f"| {model} | {method} | {precision} | {system} | {spread(rates, '.0f')} "
        f"| {spread(faster, '.2f')} | {median(shares):.0%} | {peak / MIB:.0f} "
        f"| {'' if smaller is None else f'{smaller:.2f}'} "
        f"| {f'{beside:.1%}' if beside < 1 else ''} | {turns[-1]['loss_after']:.4f} |"
    )


def spread(values: list[float], form: str) -> str:
    """Return the median, with lowest and highest in brackets."""
    if not values:
        return ""
    return f"{median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def machine() -> dict[str, Any]:
    """Return the machine and versions of the measurement."""
    import torch

    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), cpu)
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def read(path: Path) -> list[dict[str, Any]]:
    """Return the results in a file, [] if it does not exist."""
    return json.loads(path.read_text())["results"] if path.exists() else []


def write(path: Path, results: dict[str, Any]) -> None:
    """Write the results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
