"""Settings of `hpc-llm plan` (`conf/plan/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields, count, positive, require_choice

__all__ = ["TABLES", "PlanSettings"]

TABLES = ("training", "memory", "inference", "claims", "h100")


@dataclass(kw_only=True)
class PlanSettings:
    """What `hpc-llm plan` computes, and its output format."""

    tokens: int | None = count(10**18)
    """Training tokens of each stage; null: steps x train.batch_tokens of the stage."""
    token_ratio: float | None = positive(1e3)
    """New tokens / old tokens on the same text; null: as measured by the tokenizer stage."""
    format: str
    """table | json | csv."""
    table: str | None
    """Print a published table instead: training | memory | inference | claims | h100."""

    only: bool
    """Dry run of other verbs: print the plan (with launch=slurm also the job scripts) and exit."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "plan")
        require_choice("plan.format", self.format, ("table", "json", "csv"))
        if self.table is not None:
            require_choice("plan.table", self.table, TABLES)
            if self.format != "table":
                rule = "must be table for published tables (plan.table)"
                raise UserError(
                    "plan.format", self.format, rule, "remove plan.format or plan.table"
                )
