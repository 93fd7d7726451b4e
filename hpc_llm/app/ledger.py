"""`hpc-llm ledger RUN_FOLDER ...`: the cost of runs."""

import sys
from pathlib import Path

from hpc_llm.app.arguments import Arguments
from hpc_llm.distributed import visible
from hpc_llm.errors import UserError

__all__ = ["run_ledger"]


def run_ledger(arguments: Arguments) -> int:
    """Print spent and useful work of each run folder named on the command line."""
    from hpc_llm.accounting import cost_table

    if not arguments.overrides:
        raise UserError(
            "ledger",
            None,
            "no run folder",
            "pass some, for example hpc-llm ledger runs/*",
        )
    report = cost_table([Path(word) for word in arguments.overrides])
    for remark in report.remarks:
        print(f"hpc-llm: {visible(remark)}", file=sys.stderr)
    print(visible(report.text), end="")
    return 0
