"""`hpc-llm VERB [Hydra overrides]`: parse the verb, compose the configuration, run the verb.

Exit codes: 0 done, 1 failed, 2 wrong input, 3 the budget is spent, 4 preflight found bad nodes,
5 superseded by a later start, 75 stopped on request (rerun the same command to resume).
"""

import errno
import faulthandler
import importlib
import logging
import os
import sys
import traceback
from contextlib import suppress

import hpc_llm
from hpc_llm.app.arguments import parse
from hpc_llm.app.help import help_text
from hpc_llm.app.output import lasting_output
from hpc_llm.app.verbs import VERBS
from hpc_llm.distributed import SAFE_PATH, explain_limit, visible
from hpc_llm.errors import (
    EXIT_USER,
    BudgetSpent,
    Diverged,
    RankFailed,
    Stopped,
    Superseded,
    UserError,
    exit_code,
)

__all__ = ["main"]

SHOWN = 200  # letters of a text that the locale lacks
DISK_ERRORS = {
    errno.ENOSPC: "the disk is full; free space there or use another runs_dir",
    errno.EDQUOT: "disk quota exceeded; free space there or use another runs_dir",
    errno.EROFS: "the file system is read-only; use a writable runs_dir",
    errno.EACCES: "permission denied; use a path with read and write permission",
    errno.ENAMETOOLONG: "the name is too long; use a shorter one",
    errno.EPERM: "permission denied; use a path with read and write permission",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code, whatever becomes of its output."""
    os.environ.update(SAFE_PATH)  # for every child process, also those of libraries
    os.environ.setdefault("USE_HUB_KERNELS", "NO")  # transformers would fetch code and run it
    # stderr may be closed, or no file
    with suppress(AttributeError, OSError, RuntimeError, ValueError):
        faulthandler.enable(all_threads=False)  # says where native code aborted
    with lasting_output():
        return _run(argv)


def _run(argv: list[str] | None) -> int:
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        if arguments.help or arguments.version or arguments.verb is None:
            print(hpc_llm.__version__ if arguments.version else help_text(arguments.verb))
            return 0 if arguments.help or arguments.version else EXIT_USER
        module, function = VERBS[arguments.verb].work.split(":")
        work = getattr(importlib.import_module(f"hpc_llm.app.{module}"), function)
        return int(work(arguments))
    except (BudgetSpent, UserError, Diverged, Superseded) as error:
        return _report(str(error), exit_code(error))
    except Stopped as error:
        return _report(f"stopped ({error}); rerun the same command to resume", exit_code(error))
    except RankFailed as error:
        return error.code
    except UnicodeEncodeError as error:  # a path
        text = error.object.encode("ascii", "backslashreplace").decode()
        rule = f"has letters that the locale ({error.encoding}) lacks; set LC_ALL=C.UTF-8"
        return _report(f"{text[:SHOWN]}: {rule}", EXIT_USER)
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        if (line := explain_limit(error)) is not None:
            return _report(line, EXIT_USER)
        if not isinstance(error, OSError) or error.errno is None:  # not the system's
            raise
        why = DISK_ERRORS.get(error.errno, f"{error.strerror}; check that disk or network")
        return _report(f"{error.filename or 'write'}: {why}", EXIT_USER)
    except KeyboardInterrupt:
        return _report(
            "interrupted; rerun the same command to resume from the last checkpoint", 130
        )


def _report(message: str, code: int) -> int:
    if os.environ.get("HPC_LLM_DEBUG"):
        traceback.print_exc()
    logging.getLogger("hpc_llm").handlers.clear()
    print(f"hpc-llm: {' '.join(visible(message).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
