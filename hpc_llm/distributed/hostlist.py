"""Expand Slurm's hostlist and tasks-per-node notations without calling `scontrol`.

Compute nodes and containers often lack `scontrol`, and a rank should not start a process to find
its peers. The notations are those of `scontrol show hostnames` and `SLURM_TASKS_PER_NODE`.
"""

import re

from hpc_llm.errors import UserError

__all__ = ["expand_hostlist", "expand_tasks_per_node"]

_HOSTS = re.compile(r"(?:[^\s,\[\]]|\[[^\s\[\]]+\])+")  # a name; brackets may hold commas
_BRACKETS = re.compile(r"\[([^\[\]]+)\]")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_TASKS = re.compile(r"(\d+)(?:\(x(\d+)\))?")


def expand_hostlist(hostlist: str) -> list[str]:
    """Expand `node[01-03,7],gpu1` to node01, node02, node03, node7, gpu1.

    Leading zeros are kept; a name may have several brackets (the last one varies fastest) and a
    suffix. Raises `UserError` for anything else.
    """
    names = _HOSTS.findall(hostlist)
    if not names or ",".join(names) != hostlist:
        raise _bad_hostlist(hostlist)
    return [host for name in names for host in _expand_name(name, hostlist)]


def _expand_name(name: str, hostlist: str) -> list[str]:
    """Expand one name with any number of brackets."""
    parts = _BRACKETS.split(name)  # text, bracket, text, bracket, ..., text
    hosts = [parts[0]]
    for bracket, text in zip(parts[1::2], parts[2::2], strict=True):
        numbers = [n for item in bracket.split(",") for n in _expand_range(item, hostlist)]
        hosts = [host + number + text for host in hosts for number in numbers]
    return hosts


def _expand_range(item: str, hostlist: str) -> list[str]:
    """Expand `01-03` to 01, 02, 03; a single number is kept."""
    match = _RANGE.fullmatch(item)
    if match is None:
        raise _bad_hostlist(hostlist)
    first, last = match[1], match[2] or match[1]
    if int(last) < int(first):
        raise _bad_hostlist(hostlist)
    return [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]


def _bad_hostlist(hostlist: str) -> UserError:
    return UserError(
        "node list",
        repr(hostlist),
        "must be of the form node[01-03,7],gpu1",
        "set MASTER_ADDR to the name of the first node",
    )


def expand_tasks_per_node(tasks: str) -> list[int]:
    """Expand `4(x2),2` to [4, 4, 2], one count per node. Raises `UserError` for anything else."""
    counts: list[int] = []
    for item in tasks.split(","):
        match = _TASKS.fullmatch(item)
        if match is None:
            raise UserError(
                "SLURM_STEP_TASKS_PER_NODE",
                tasks,
                "must be of the form 4(x2),2",
                "start the ranks with srun and do not set this variable",
            )
        counts += [int(match[1])] * int(match[2] or 1)
    return counts
