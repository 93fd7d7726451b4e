"""Console logging: INFO on rank 0, only warnings on the others."""

import logging
import sys

from hpc_llm.distributed.ranks import Ranks
from hpc_llm.distributed.terminal import visible

__all__ = ["say", "set_up_console"]

_LOGGER = logging.getLogger("hpc_llm")


class _Visible(logging.Formatter):
    """Messages contain paths, settings and errors of other programs."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def set_up_console(ranks: Ranks) -> None:
    """Send the logger `hpc_llm` to stderr: INFO on rank 0, WARNING on the others.

    With several ranks, lines are prefixed with `[rank 3] `. Standard output is reserved for
    results. A second call replaces the first.
    """
    prefix = f"[rank {ranks.rank}] " if ranks.world_size > 1 else ""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Visible(prefix + "%(message)s"))
    _LOGGER.handlers[:] = [handler]
    _LOGGER.setLevel(logging.INFO if ranks.is_first else logging.WARNING)
    _LOGGER.propagate = False


def say(message: str) -> None:
    """Log a message on rank 0."""
    _LOGGER.info("%s", message)
