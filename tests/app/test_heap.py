"""The process that trains on a CPU gets its heap by restarting itself."""

import json
import os
import subprocess
import sys

import pytest

from hpc_llm.app.heap import TUNABLES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings, and exec")

PROGRAM = """\
import json, os, sys
from hpc_llm.app.heap import join_freed_blocks
print(os.getpid())
join_freed_blocks()
print(json.dumps([os.getpid(), sys.argv[1:], os.environ.get("GLIBC_TUNABLES")]))
"""


def start(folder, name, **variables):
    """Run PROGRAM under `name`; return the processes it was, its words, and the settings."""
    (folder / name).write_text(PROGRAM)
    own = {"PATH": str(folder), **variables}
    words = ["a b", "c='d'", "/there/hpc-llm"]
    command = [sys.executable, str(folder / name), *words]
    known = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    said = subprocess.run(command, env=known | own, capture_output=True, text=True, check=True)
    *before, after = said.stdout.splitlines()
    number, argv, settings = json.loads(after)
    assert argv == words
    assert {*map(int, before)} == {number}
    return len(before), settings


def test_it_restarts_once_as_the_same_process_with_the_same_words(tmp_path):
    assert start(tmp_path, "hpc-llm") == (2, TUNABLES)


def test_what_the_user_has_set_stays(tmp_path):
    given = "glibc.malloc.arena_max=1"
    assert start(tmp_path, "hpc-llm", GLIBC_TUNABLES=given) == (1, given)


def test_another_program_and_one_beside_a_gpu_are_left_alone(tmp_path):
    assert start(tmp_path, "other") == (1, None)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("")
    tool.chmod(0o755)
    assert start(tmp_path, "hpc-llm") == (1, None)
