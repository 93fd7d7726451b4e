"""Questions before and after scoring."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["NO_CHOICE", "Asked", "Outcome", "Question", "Scored", "by_highest"]

NO_CHOICE = -1  # gold of a question none of whose choices equals an accepted answer
BETWEEN_SHOTS = "\n\n"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a kind of task makes of a record."""

    prompt: str
    """Text before the choices; may be empty."""
    separator: str = ""
    """Text between prompt and choice: scored with the choice, not counted in its bytes."""
    choices: tuple[str, ...]
    """Texts to score after the prompt: the choices, or the one text of a generated answer."""
    gold: int
    """Index of the correct choice; -1: none equals an accepted answer."""
    neutral_prompt: str | None = None
    """Prompt without the question, after which choices are scored, too; None: they are not."""
    generates: bool = False
    """Whether the model continues the prompt by an answer of its own."""
    answers: tuple[str, ...] = ()
    """Accepted answers of a question that is judged by the text of its answer."""
    texts: tuple[str, ...] = ()
    """Answers that the choices stand for, if they differ from the choices."""


@dataclass(frozen=True, kw_only=True)
class Question(Asked):
    """A question of a task."""

    id: str
    """`FILE:LINE` of its record, without the folder."""
    groups: tuple[str, ...] = ()
    """Its groups, from outer to inner."""
    preamble: str = ""
    """Text before the examples."""
    shots: tuple[str, ...] = ()
    """Solved examples before the prompt."""
    submission_id: str | int | None = None
    """Id of its record in an archive of answers; None: it is scored."""
    unit: str | None = None
    """Id that it shares with other questions of its record; None: it is alone."""

    @property
    def context(self) -> str:
        """All that precedes the choices: preamble, examples, prompt."""
        return self.preamble + "".join(shot + BETWEEN_SHOTS for shot in self.shots) + self.prompt

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Pairs (prompt, continuation) to score: each choice after the prompt, then each after
        the neutral prompt, if there is one."""
        prompts = [self.context] + ([] if self.neutral_prompt is None else [self.neutral_prompt])
        return [
            (prompt, (self.separator if prompt else "") + choice)
            for prompt in prompts
            for choice in self.choices
        ]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of a question's choices, the input of metrics."""

    scores: Sequence[float]
    """S(c) = sum log P(c_t | p, c_<t) of each choice, in nats."""
    neutral: Sequence[float] | None
    """The same after the neutral prompt; None: the task has none."""
    bytes: Sequence[int]
    """UTF-8 bytes of each choice."""
    gold: int
    """Index of the correct choice; -1: none of them."""
    answer: str | None = None
    """Text of the model's answer: generated, or of its choice; None: the task has no such texts."""
    answers: Sequence[str] = ()
    """Accepted answers, for tasks judged by the text of an answer."""
    texts: Sequence[str] = ()
    """Answers that the choices stand for; empty for a generated answer."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The value of a metric for one question."""

    value: float
    """In [0, 1] for a metric that is a mean; a guess has 1 / choices on average."""
    prediction: int | None
    """Index of the predicted choice; None: none, since a score is NaN or the answer generated."""
    parts: tuple[float, ...] = ()
    """What a metric that is no mean sums over questions (`metrics.totals`)."""


def by_highest(values: Sequence[float], gold: int) -> Outcome:
    """Return 1 if `values[gold]` is the highest, else 0; n choices that tie for it share the 1."""
    highest = max(values)
    tied = [index for index, value in enumerate(values) if value == highest]
    return Outcome(value=1 / len(tied) if gold in tied else 0.0, prediction=tied[0])
