"""`hpc-llm ledger RUN_FOLDER ...`: what runs have spent."""

from pathlib import Path

from hpc_llm.app.arguments import Arguments
from hpc_llm.errors import UserError

__all__ = ["run_ledger"]


def run_ledger(arguments: Arguments) -> int:
    """Print spent and useful work of each run folder named on the command line."""
    from hpc_llm.accounting import Ledger, pf_days

    if not arguments.overrides:
        raise UserError("ledger: no run folder; give some, for example hpc-llm ledger runs/*")
    print(f"{'run':<28} {'FLOPs':>10} {'PF-days':>10} {'device-h':>9} {'goodput':>8}")
    for word in arguments.overrides:
        path = Path(word) / "ledger.jsonl"
        if not path.exists():
            raise UserError(f"{word}: holds no ledger.jsonl; give a run folder that has trained")
        totals = Ledger(path).totals()
        spent = totals.spent
        goodput = "n/a" if totals.goodput is None else f"{totals.goodput:.1%}"
        print(
            f"{word:<28} {spent.flops:>10.3g} {pf_days(spent.flops):>10.3g} "
            f"{spent.device_hours:>9.3f} {goodput:>8}"
        )
    return 0
