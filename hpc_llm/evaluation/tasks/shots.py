"""Few-shot examples: solved records that precede a question. No torch here."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from hpc_llm.errors import UserError
from hpc_llm.evaluation.tasks.fields import Fields
from hpc_llm.evaluation.tasks.questions import Question

__all__ = ["Shots", "solved"]


@dataclass(frozen=True, kw_only=True)
class Shots:
    """The examples of a task, by the value of `shots_by`."""

    name: str
    """Name of the task."""
    count: int
    """Examples of each question."""
    files: str
    """Files that they are from, for messages."""
    texts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Solved records by the value of `shots_by`."""
    ids: set[str] = field(default_factory=set)
    """Ids of the records."""

    def take(self, records: Iterable[tuple[Fields, Question]]) -> None:
        """Keep the first records of each value of `shots_by`."""
        for fields, question in records:
            own = self.texts[fields.shots_by()]
            if len(own) < self.count:
                own.append(solved(fields, question))
                self.ids.add(question.id)

    def of(self, fields: Fields) -> tuple[str, ...]:
        """Return the examples of a question. Raises `UserError` if there are too few."""
        value = fields.shots_by()
        found = self.texts.get(value, [])
        if len(found) < self.count:
            about = f" of {fields.task.shots_by} {value}" if value else ""
            rule = f"{self.files}: only {len(found)} records{about}"
            fix = f"use evaluation.task_shots.{self.name}={len(found)}, or a longer file"
            raise UserError(f"task.{self.name}.shots", self.count, rule, fix)
        return tuple(found)


def solved(fields: Fields, question: Question) -> str:
    """Return the text of a record with its correct answer.

    Raises `UserError` for a kind without a prompt, and for a record without a correct choice.
    """
    if not question.prompt:
        raise fields.unfit("shots", f"kind {fields.task.kind} has no prompt to show solved")
    if question.gold < 0:
        raise fields.bad("none of its choices is correct, so it is no example")
    return question.prompt + question.separator + question.choices[question.gold]
