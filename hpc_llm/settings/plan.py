"""Settings of `hpc-llm plan` (`conf/plan/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_choice, require_positive

__all__ = ["TABLES", "PlanSettings"]

TABLES = ("training", "memory", "inference", "claims", "h100")


@dataclass(kw_only=True)
class PlanSettings:
    """What `plan` is asked."""

    tokens: int | None
    """Training tokens of each stage; null: what the stage's steps amount to."""
    token_ratio: float | None
    """New tokens over old ones on the same text; null: what this run's tokenizer measured."""
    format: str
    """table | json | csv."""
    table: str | None
    """Print a published table instead: training | memory | inference | claims | h100."""

    only: bool
    """For the verbs that work: print the plan, with launch=slurm the job scripts too, and stop."""

    def __post_init__(self) -> None:
        """Check the values."""
        for key in ("tokens", "token_ratio"):
            if getattr(self, key) is not None:
                require_positive(f"plan.{key}", getattr(self, key))
        require_choice("plan.format", self.format, ("table", "json", "csv"))
        if self.table is not None:
            require_choice("plan.table", self.table, TABLES)
            if self.format != "table":
                raise UserError(
                    f"plan.format={self.format}: published tables are text; leave plan.format or "
                    "plan.table out"
                )
