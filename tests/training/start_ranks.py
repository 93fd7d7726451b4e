"""Programs of these tests as ranks, and the JSON that rank 0 prints."""

import json
import os
from pathlib import Path

from forked import forked_ranks

from hpc_llm.methods import method_names

__all__ = ["METHODS", "run", "run_and_listen", "start_ranks"]

METHODS = {name: {"method": name} for name in method_names()}
"""As much of a task of `train_tiny.py` as each training method needs."""
METHODS["new_rows"]["rows"] = [3, 60]


def start_ranks(program, argument, processes=1, nodes=1):
    """Run `program` beside this file with one argument as ranks.

    Returns the list that rank 0 prints, and what all ranks said on the console.
    """
    ended = forked_ranks(
        str(Path(__file__).parent / program), argument, processes, os.environ, nodes
    )
    console = "".join(rank.stderr for rank in ended)
    assert not any(rank.returncode for rank in ended), console[-3000:]
    line = next(line for line in ended[0].stdout.splitlines() if line.startswith("["))
    return json.loads(line), console


def run_and_listen(tasks, processes=1, nodes=1):
    """Train `tasks` in one start of `processes` ranks; return their results and the console."""
    tasks = [{"zero": 1, "method": "full", **task, "folder": str(task["folder"])} for task in tasks]
    return start_ranks("train_tiny.py", json.dumps(tasks), processes, nodes)


def run(tasks, processes=1, nodes=1):
    """Train `tasks` in one start of `processes` ranks; return their results in order."""
    return run_and_listen(tasks, processes, nodes)[0]
