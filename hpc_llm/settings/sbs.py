"""Settings of `hpc-llm sbs`: answers of models side by side, judged by people (`conf/sbs/`)."""

from dataclasses import dataclass, field

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields, count, number, require_choice, require_name

__all__ = ["PAGE_LANGUAGES", "SbsSettings"]

PAGE_LANGUAGES = ("en", "ru")
MOST = 10**4  # annotators, repeats


@dataclass(kw_only=True)
class SbsSettings:
    """A blind comparison of answers: who sees what, and how answers are generated."""

    models: dict[str, str] = field(default_factory=dict)
    """Models by the name that the result gives them: a model folder, a run folder (its result) or a
    hub id. Two or more."""
    questions: str | None = None
    """JSON Lines file with a field `question` on each line, and optionally `id`."""
    annotators: int = count(MOST, default=15)
    """Number of annotators: one page each."""
    per_question: int | None = count(MOST, default=None)
    """Annotators who see a question; null: all of them."""
    repeats: int = count(MOST, low=0, default=4)
    """Questions that each annotator sees a second time, sides swapped, for self-agreement."""
    language: str = "en"
    """Language of the buttons and instructions on the pages: en or ru."""
    prompt: str = "{question}"
    """Text that a model continues; {question} stands for the question."""
    chat: bool = False
    """Wrap the prompt in each model's chat template."""
    max_new_tokens: int = count(10**6, default=200)
    """Longest answer in tokens."""
    temperature: float = number(0, 100, default=0.0)
    """0: greedy. Above: sampling at this temperature, seeded by `seed` and the question."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "sbs")
        require_choice("sbs.language", self.language, PAGE_LANGUAGES)
        for name in self.models:
            require_name(f"sbs.models.{name}", name, ("tie", "both_bad"))
        if "{question}" not in self.prompt:
            fix = "for example sbs.prompt='Question: {question} Answer:'"
            raise UserError("sbs.prompt", self.prompt, "must contain {question}", fix)
        if self.per_question is not None and self.per_question > self.annotators:
            rule = f"must be at most sbs.annotators={self.annotators}"
            raise UserError("sbs.per_question", self.per_question, rule)
