"""Distributed environment of this process: ranks, layout, network, stop signals, console logging.

Nothing here needs torch, so verbs that never train start fast.
"""

from hpc_llm.distributed.children import SAFE_PATH, child_environment, python_module
from hpc_llm.distributed.hostlist import expand_hostlist, expand_tasks_per_node
from hpc_llm.distributed.layout import Layout, Place, layout_of
from hpc_llm.distributed.limits import available_bytes, explain_limit
from hpc_llm.distributed.logging import say, set_up_console
from hpc_llm.distributed.network import join_network
from hpc_llm.distributed.ranks import Ranks, check_visible_devices, detect_ranks, export
from hpc_llm.distributed.signals import (
    HELD_BACK,
    STOP_SIGNALS,
    StopFlag,
    caught,
    leave_closed_terminal,
    unreached,
)
from hpc_llm.distributed.terminal import visible

__all__ = [
    "HELD_BACK",
    "SAFE_PATH",
    "STOP_SIGNALS",
    "Layout",
    "Place",
    "Ranks",
    "StopFlag",
    "available_bytes",
    "caught",
    "check_visible_devices",
    "child_environment",
    "detect_ranks",
    "expand_hostlist",
    "expand_tasks_per_node",
    "explain_limit",
    "export",
    "join_network",
    "layout_of",
    "leave_closed_terminal",
    "python_module",
    "say",
    "set_up_console",
    "unreached",
    "visible",
]
