"""`hpc-llm VERB [Hydra overrides]`: read the verb, compose the configuration, do the work.

Exit codes: 0 done, 1 failed, 2 something to mend in the command, 3 the budget is spent, 4 preflight
has found bad nodes, 5 a later start has the run folder, 75 stopped on request (start the same
command again and it goes on).
"""

import errno
import importlib
import logging
import os
import sys
import traceback

import hpc_llm
from hpc_llm.app.arguments import parse
from hpc_llm.app.help import help_text
from hpc_llm.app.verbs import VERBS
from hpc_llm.errors import (
    EXIT_USER,
    BudgetSpent,
    Diverged,
    FirstRankFailed,
    Stopped,
    Superseded,
    UserError,
    exit_code,
)

__all__ = ["main"]

DISK_ERRORS = {
    errno.ENOSPC: "the disk is full; free space there or give another runs_dir",
    errno.EDQUOT: "your quota is used up; free space there or give another runs_dir",
    errno.EROFS: "the disk is read-only; give a runs_dir that can be written",
    errno.EACCES: "permission denied; give a path that you may read and write",
    errno.EPERM: "permission denied; give a path that you may read and write",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        if arguments.help or arguments.version or arguments.verb is None:
            print(hpc_llm.__version__ if arguments.version else help_text(arguments.verb))
            return 0 if arguments.help or arguments.version else EXIT_USER
        module, function = VERBS[arguments.verb].work.split(":")
        work = getattr(importlib.import_module(f"hpc_llm.app.{module}"), function)
        return int(work(arguments))
    except (BudgetSpent, UserError, Diverged, Superseded) as error:
        return _tell(str(error), exit_code(error))
    except Stopped as error:
        return _tell(f"stopped ({error}); the same command resumes from here", exit_code(error))
    except FirstRankFailed as error:
        return error.code
    except BrokenPipeError:  # the reader of a pipe has ended: hpc-llm --help | head
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - its flush at exit has a place
        return 0
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        return _tell(f"{error.filename or 'write'}: {DISK_ERRORS[error.errno]}", EXIT_USER)
    except KeyboardInterrupt:
        return _tell("interrupted; the same command resumes from the last checkpoint", 130)


def _tell(message: str, code: int) -> int:
    if os.environ.get("HPC_LLM_DEBUG"):
        traceback.print_exc()
    logging.getLogger("hpc_llm").handlers.clear()
    print(f"hpc-llm: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
