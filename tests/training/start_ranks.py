"""Programs of these tests as ranks, and the JSON that rank 0 prints."""

import json
import os
import sys
from pathlib import Path

from hpc_llm.launch import run_ranks
from hpc_llm.methods import method_names

__all__ = ["METHODS", "start_ranks"]

METHODS = {name: {"method": name} for name in method_names()}
"""As much of a task of `train_tiny.py` as each training method needs."""
METHODS["new_rows"]["rows"] = [3, 60]


def start_ranks(capfd, program, argument, processes=1):
    """Run `program` beside this file with one argument as ranks; return the list it prints."""
    capfd.readouterr()
    command = [sys.executable, str(Path(__file__).parent / program)]
    ended = run_ranks([argument], processes, os.environ, command=command)
    said = capfd.readouterr()
    assert ended == 0, said.err[-3000:]
    return json.loads(next(line for line in said.out.splitlines() if line.startswith("[")))
