"""The console: rank 0 logs what happens, the others only warnings."""

import logging
import sys

from hpc_llm.distributed.ranks import Ranks

__all__ = ["say", "set_up_console"]

_LOGGER = logging.getLogger("hpc_llm")


def set_up_console(ranks: Ranks) -> None:
    """Send the logger `hpc_llm` to stderr: INFO on the first rank, WARNING on the others.

    Lines carry `[rank 3] ` when there are several ranks. Standard output stays for results.
    A second call replaces the first.
    """
    prefix = f"[rank {ranks.rank}] " if ranks.world_size > 1 else ""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(prefix + "%(message)s"))
    _LOGGER.handlers[:] = [handler]
    _LOGGER.setLevel(logging.INFO if ranks.is_first else logging.WARNING)
    _LOGGER.propagate = False


def say(message: str) -> None:
    """Print what happens; only the first rank's words are shown."""
    _LOGGER.info("%s", message)
