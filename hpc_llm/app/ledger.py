"""`hpc-llm ledger RUN_FOLDER ...`: what runs have spent."""

from pathlib import Path

from hpc_llm.app.arguments import Arguments
from hpc_llm.errors import UserError

__all__ = ["run_ledger"]


def run_ledger(arguments: Arguments) -> int:
    """Print spent and useful work of each run folder named on the command line."""
    from hpc_llm.accounting import ledger_report

    if not arguments.overrides:
        raise UserError("ledger: no run folder; give some, for example hpc-llm ledger runs/*")
    print(ledger_report([Path(word) for word in arguments.overrides]), end="")
    return 0
