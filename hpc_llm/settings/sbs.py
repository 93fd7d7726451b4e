"""Settings of `hpc-llm sbs`: answers of models side by side, judged by people (`conf/sbs/`)."""

from dataclasses import dataclass, field

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields, count, number, require_choice, require_name

__all__ = ["PAGE_LANGUAGES", "SbsSettings"]

PAGE_LANGUAGES = ("en", "ru")
MOST = 10**4  # annotators, repeats
VOTE_VARIANCE = 0.25  # of a vote without ties at a win rate of 1/2, the largest there is


@dataclass(kw_only=True)
class SbsSettings:
    """A blind comparison of answers: who sees what, how answers are generated, what is read."""

    models: dict[str, str] = field(default_factory=dict)
    """Models by the name that the result gives them: a model folder, a run folder (its result) or a
    hub id. Two or more. The result compares each with those before it."""
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
    collect: list[str] = field(default_factory=list)
    """Files of answers that annotators exported, or patterns: evaluate the study of the run."""
    partial: bool = False
    """Accept answer files that lack some cards."""
    only_plan: bool = False
    """Print the smallest difference that the study can detect, and generate nothing."""
    question_sd: float = number(0, 0.5, default=0.2)
    """Assumed standard deviation of the win rate between questions, for `only_plan`."""
    annotator_sd: float = number(0, 0.5, default=0.05)
    """Assumed standard deviation of the win rate between annotators, for `only_plan`."""

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
        if self.question_sd**2 + self.annotator_sd**2 > VOTE_VARIANCE:
            rule = "its square and that of sbs.annotator_sd must sum to at most 0.25"
            raise UserError("sbs.question_sd", self.question_sd, rule, "use smaller values")
