"""Settings common to all training stages (`stages.NAME.*`); a method adds its own.

A recipe is an ordered mapping of named stages. Each is typed by the dataclass of its method, a
subclass of `StageSettings` in `hpc_llm/methods/`, so a stage has no settings without effect.
"""

import re
from dataclasses import dataclass
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields, count, positive, require_name

__all__ = ["RESERVED", "SCRATCH", "UNTRAINED", "StageSettings"]

SCRATCH = "scratch"
UNTRAINED = "untrained"
STEP = re.compile(r"0*[1-9][0-9]{0,11}")
RESERVED = ("base", "tokenizer", "transplant", "corrected", SCRATCH, UNTRAINED)
"""Names in `evaluate/` that are not training stages, and the starts that are not stages."""


@dataclass(kw_only=True)
class StageSettings:
    """One training stage: starting point, text, length and learning rate."""

    method: str
    """A file in `hpc_llm/methods/`, selected by `method@stages.NAME=METHOD`."""
    from_stage: str | None
    """`from` in YAML. null: the end of the stage before it, for the first one the transplanted
    model; transplant | STAGE: the end of that stage; STAGE@STEP: its checkpoint of that step with
    its optimizer states and its position in the text (a decay branch); scratch: an untrained model
    of model.architecture on the source text, if no weights are given; untrained: the transplanted
    model with untrained weights, to see what those of the base model are worth."""
    text: dict[str, float] | None
    """Shares of the tokens by text: target, source or a name of corpus.texts; null: target, and
    train.replay of source."""
    sequence_length: int | None = count(10**8)
    """Tokens in a packed sequence; null: train.sequence_length."""
    batch_tokens: int | None = count(10**12)
    """Tokens of one optimizer step over all ranks; null: train.batch_tokens."""
    micro_batch_tokens: int | None = count(10**12)
    """Maximum tokens per forward pass of one rank; null: train.micro_batch_tokens."""
    schedule: dict[str, Any] | None
    """Differences from the run's schedule: stages.NAME.schedule.name=wsd; null: none."""
    steps: int = count(10**12)
    """Maximum optimizer steps."""
    tokens: int | None = count(10**18)
    """Maximum tokens of text; the schedule then runs over tokens. null: no limit."""
    pf_days: float | None = positive(1e12)
    """Maximum model FLOPs in PF-days; the schedule then runs over FLOPs. null: no limit."""
    max_epochs: float = positive(1e9)
    """Maximum passes over the training text: the stage ends at this or at `steps`, whichever is
    first."""
    learning_rate: float | None = positive(1e10)
    """Peak learning rate; null: learning_rate_times_width / hidden_size."""
    learning_rate_times_width: float = positive(1e10)
    """Peak learning rate at width 1: Adam's learning rate for matrices scales as 1/width (Yang et
    al. 2022, arXiv 2203.03466, table 3)."""

    def peak_rate(self, hidden_size: int) -> float:
        """Return the peak learning rate for a model of this width."""
        if self.learning_rate is not None:
            return self.learning_rate
        return self.learning_rate_times_width / hidden_size

    @property
    def branch(self) -> tuple[str, int] | None:
        """Stage and step of `from: STAGE@STEP`; None for a stage that starts elsewhere."""
        stage, at, step = (self.from_stage or "").partition("@")
        return (stage, int(step)) if at else None

    def check(self, key: str) -> None:
        """Raise `UserError` for wrong values; `key` is `stages.NAME`."""
        require_name(key, key.removeprefix("stages."), RESERVED)
        check_fields(self, key)
        if self.tokens is not None and self.pf_days is not None:
            raise UserError(
                f"{key}.tokens", self.tokens, f"{key}.pf_days={self.pf_days:g} is a limit too",
                "set only one of them",
            )  # fmt: skip
        self._check_from(key)
        shares = (self.text or {"target": 1.0}).values()
        if any(share < 0 for share in shares) or not sum(shares) > 0:
            raise UserError(
                f"{key}.text", self.text, "shares must be 0 or above, and at least one above 0"
            )

    def _check_from(self, key: str) -> None:
        stage, at, step = (self.from_stage or "").partition("@")
        if at and not (STEP.fullmatch(step) and stage):
            raise UserError(
                f"{key}.from",
                self.from_stage,
                "must be STAGE or STAGE@STEP, with steps counted from 1",
                "for example lora@500",
            )
