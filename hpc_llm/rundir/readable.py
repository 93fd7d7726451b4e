"""One line for a file of a run that a library cannot read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpc_llm.errors import UserError

__all__ = ["readable"]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise `UserError` for `path` when the block, which only reads it, cannot make sense of it.

    Each library has its own errors for this. System errors, those of the device and of memory are
    raised as they are.
    """
    try:
        yield
    except (UserError, RuntimeError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        fix = "remove it, and run hpc-llm adapt with the same settings"
        raise UserError(str(path), None, f"is damaged: cannot be read ({first})", fix) from error
