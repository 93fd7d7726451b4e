"""Programs in processes of their own that need not import torch: a fork server has done so.

Importing torch, DeepSpeed and transformers takes longer than most tiny runs. A fork server (of the
standard library) imports them once; each program is then a fork of it. Only the start differs:
tests of the start itself, of signals and of kills use `subprocess`.
"""

import gc
import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from tempfile import TemporaryDirectory

from hpc_llm.app.heap import TUNABLES
from hpc_llm.launch.local import _variables

__all__ = ["forked", "forked_ranks"]

HERE = Path(__file__).parent
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["preloaded"])


@cache
def _start_server() -> None:
    """Start the fork server where it finds `preloaded.py`; it takes its path when it starts."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), before)))
    forkserver.ensure_running()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


def _program(
    program: str, arguments: list[str], environment: dict[str, str], folder: str, out: str
) -> None:
    """In the fork: become `program`, with its output in files."""
    gc.freeze()  # what has been imported is no garbage: collections need not look at it
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, ending in ((1, "out"), (2, "err")):
        target = os.open(f"{out}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, number)
        os.close(target)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", line_buffering=stream is sys.stderr)
    sys.argv = [program, *arguments]
    if program.endswith(".py"):
        sys.path.insert(0, str(Path(program).parent))
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def _run(
    program: str, arguments: Sequence[str], environments: list[dict[str, str]], timeout: float
) -> list[CompletedProcess[str]]:
    """Run one process for each environment; the first that fails ends the others."""
    _start_server()
    with TemporaryDirectory() as folder:
        outs = [Path(folder) / f"rank{number}" for number in range(len(environments))]
        processes = []
        for environment, out in zip(environments, outs, strict=True):
            # with it set the program does not execute itself again for it
            own = {"GLIBC_TUNABLES": TUNABLES, **environment}
            given = (program, list(arguments), own, os.getcwd(), str(out))
            processes.append(context.Process(target=_program, args=given))
            processes[-1].start()
        waiting = list(processes)
        while waiting:
            ended = wait([process.sentinel for process in waiting], timeout)
            for process in waiting:
                if not ended:
                    process.kill()
            if not ended:
                raise TimeoutExpired(program, timeout)
            for process in [process for process in waiting if process.sentinel in ended]:
                process.join()
                waiting.remove(process)
                for other in waiting if process.exitcode else ():
                    other.terminate()
        return [
            CompletedProcess(
                [program, *arguments],
                process.exitcode,
                *(out.with_suffix(f".{name}").read_text("utf-8") for name in ("out", "err")),
            )
            for process, out in zip(processes, outs, strict=True)
        ]


def forked(
    program: str, *arguments: str, environment: Mapping[str, str], timeout: float = 600
) -> CompletedProcess[str]:
    """Run `program` (the name of a module, or a path that ends with .py)."""
    return _run(program, arguments, [dict(environment)], timeout)[0]


def forked_ranks(
    program: str,
    argument: str,
    processes: int,
    environment: Mapping[str, str],
    nodes: int = 1,
    timeout: float = 900,
) -> list[CompletedProcess[str]]:
    """Run `program` with one argument as ranks, with the variables of `run_ranks`.

    The ranks believe to be on `nodes` nodes with equal numbers of ranks.
    """
    each = processes // nodes
    variables = [
        {**own, "LOCAL_RANK": str(rank % each), "LOCAL_WORLD_SIZE": str(each)}
        for rank, own in enumerate(_variables(processes, environment))
    ]
    return _run(program, [argument], variables, timeout)
