"""The templates and expressions of a task, evaluated over one record at a time.

They are jinja2's, in its sandbox: a task file from elsewhere can run no code and read no files.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateRuntimeError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hpc_llm.errors import UserError
from hpc_llm.settings.task import TaskSettings

__all__ = ["Fields", "Templates"]


UNKNOWN = "?"  # in place of an answer that is hidden


class Templates:
    """The compiled templates of a task. Raises `UserError` about `task.NAME.KEY` for bad syntax."""

    def __init__(self, name: str, task: TaskSettings, *, submits: bool = False) -> None:
        """Compile them; `submits`: the answers of records are not looked at."""
        self.name, self.task, self.submits = name, task, submits
        self._environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, keep_trailing_newline=True, finalize=_not_null
        )
        self._environment.globals.clear()  # else a field that is missing could be a function
        self._environment.filters["spans"] = _spans
        self.prompt = self._template("prompt", task.prompt)
        self.preamble = self._template("preamble", task.preamble)
        self.shots_by = None if not task.shots_by else self._expression("shots_by", task.shots_by)
        self.submission_id = self._expression("submission_id", task.submission_id)
        neutral = task.neutral_prompt
        self.neutral_prompt = None if neutral is None else self._template("neutral_prompt", neutral)
        self.choices = (
            self._expression("choices", task.choices)
            if isinstance(task.choices, str)
            else [self._template("choices", text) for text in task.choices]
        )
        self.gold = None if task.gold is None else self._expression("gold", task.gold)
        self.groups = [self._expression("group_by", text) for text in task.group_by]
        self.each = [self._expression("each", text) for text in task.each]
        self.variants = [
            {key: self._expression("variants", text) for key, text in variant.items()}
            for variant in task.variants
        ]

    def _template(self, key: str, text: str) -> Callable[[Mapping[str, Any]], str]:
        return self._compiled(key, text, lambda: self._environment.from_string(text).render)

    def _expression(self, key: str, text: str) -> Callable[[Mapping[str, Any]], Any]:
        compile_it = self._environment.compile_expression
        return self._compiled(key, text, lambda: compile_it(text, undefined_to_none=False))

    def _compiled(self, key: str, text: str, compile_it: Callable[[], Any]) -> Any:
        try:
            return compile_it()
        except TemplateSyntaxError as error:
            place, fix = f"task.{self.name}.{key}", "correct the task's file"
            rule = f"not valid jinja2: line {error.lineno}: {error.message}"
            raise UserError(place, " ".join(text.split()), rule, fix) from error


def _spans(places: Sequence[Mapping[str, int]], text: str) -> list[str]:
    """Return the different texts from `start` to `end` (exclusive) of each place in `text`."""
    return [*dict.fromkeys(text[place["start"] : place["end"]].strip() for place in places)]


def _not_null(value: Any) -> Any:
    """Refuse to print null, which would read `None` in a prompt."""
    if value is None:
        raise TemplateRuntimeError("it prints a value that is null")
    return value


@dataclass(frozen=True)
class Fields:
    """The settings of a task, evaluated over one record."""

    templates: Templates
    record: Mapping[str, Any]
    where: str
    """`FILE:LINE` of the record."""
    place: tuple[int, ...] = ()
    """Indices of a question inside its record: in each nested list, then of its variant."""

    @property
    def task(self) -> TaskSettings:
        """The settings of the task."""
        return self.templates.task

    def prompt(self) -> str:
        """Return the text before the choices."""
        return str(self._value("prompt", self.templates.prompt))

    def preamble(self) -> str:
        """Return the text before the examples."""
        return str(self._value("preamble", self.templates.preamble))

    def shots_by(self) -> str:
        """Return what the examples of this question have in common; empty: nothing."""
        function = self.templates.shots_by
        return "" if function is None else str(self._value("shots_by", function))

    def neutral_prompt(self) -> str | None:
        """Return the prompt without the question; None: the task has none."""
        function = self.templates.neutral_prompt
        return None if function is None else str(self._value("neutral_prompt", function))

    def choices(self) -> tuple[str, ...]:
        """Return the choices. Raises `UserError` unless they are a list of two or more texts."""
        functions = self.templates.choices
        if functions == []:
            raise self.unfit("choices", f"kind {self.task.kind} needs two or more")
        if isinstance(functions, list):
            found = [self._value("choices", function) for function in functions]
        else:
            found = self._value("choices", functions)
        if not isinstance(found, list | tuple) or not all(isinstance(c, str) for c in found):
            raise self.bad(f"choices must be a list of texts, not {found!r}")
        if len(found) < 2:
            raise self.bad(f"has {len(found)} choices; two or more are needed")
        return tuple(found)

    def gold(self, choices: tuple[str, ...]) -> int:
        """Return the index of the correct choice, given by index or by its text.

        Raises `UserError` if it is not one of the choices.
        """
        if self.templates.submits:
            return 0
        found = self._gold("names the correct choice, by its index or its text")
        if isinstance(found, str):
            texts = [choice.strip() for choice in choices]
            if found.strip() in texts:
                return texts.index(found.strip())
        elif isinstance(found, int) and 0 <= found < len(choices):
            return int(found)
        last = len(choices) - 1
        shown = ", ".join(choices)
        raise self.bad(f"gold is {found!r}, not an index from 0 to {last} nor one of {shown}")

    def label(self) -> int:
        """Return the index of the class: of the value of gold in `labels`, or that number itself.

        Booleans are written `false` and `true`. Raises `UserError` for a value that is no label.
        """
        if self.templates.submits:
            return 0
        labels = self.task.labels
        found = self._gold("names the class, by its label or its index")
        text = str(found).lower() if isinstance(found, bool) else str(found).strip()
        if text in labels:
            return labels.index(text)
        if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < len(labels):
            return int(found)
        raise self.bad(f"gold is {found!r}, not one of {', '.join(labels)}")

    def answers(self) -> tuple[str, ...]:
        """Return the accepted answers. Raises `UserError` unless they are texts, one or more."""
        if self.templates.submits:
            return (UNKNOWN,)
        found = self._gold("gives the accepted answer, or a list of them")
        found = [found] if isinstance(found, str | int) else found
        if not isinstance(found, list | tuple) or not found or not all(map(str, found)):
            raise self.bad(f"gold is {found!r}, not a text nor a list of texts")
        return tuple(map(str, found))

    def _gold(self, rule: str) -> Any:
        if self.templates.gold is None:
            raise self.unfit("gold", rule)
        found = self._value("gold", self.templates.gold)
        if self.task.submission is not None and found in ("", None):
            rule = "no answers in this file: metrics cannot be computed offline"
            fix = "evaluation.submission=true writes the model's answers for the benchmark"
            raise UserError(self.where, None, f"task {self.templates.name}: {rule}", fix)
        return found

    def submission_id(self) -> str | int:
        """Return the id of the record in an archive. Raises `UserError` for no text or number."""
        found = self._value("submission_id", self.templates.submission_id)
        if not isinstance(found, str | int):
            raise self.bad(f"submission_id is {found!r}, not a text or a number")
        return found

    def questions(self) -> Iterator["Fields"]:
        """Yield the fields of each question of the record: one, or those of `each` and `variants`.

        Raises `UserError` for a value of `each` that is no list of objects.
        """
        for inner in self._nested(0):
            if not self.templates.variants:
                yield inner
            for index, variant in enumerate(self.templates.variants):
                more = {key: inner._value("variants", f) for key, f in variant.items()}
                yield inner._with(more, index)

    def _nested(self, depth: int) -> Iterator["Fields"]:
        if depth == len(self.templates.each):
            yield self
            return
        found = self._value("each", self.templates.each[depth])
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise self.bad(f"each: {self.task.each[depth]} must be a list of objects")
        for index, entry in enumerate(found):
            yield from self._with(entry, index)._nested(depth + 1)

    def _with(self, more: Mapping[str, Any], index: int) -> "Fields":
        return replace(self, record={**self.record, **more}, place=(*self.place, index))

    def groups(self) -> tuple[str, ...]:
        """Return the groups of the record, from outer to inner."""
        found = [self._value("group_by", function) for function in self.templates.groups]
        if None in found:
            raise self.bad(f"group_by: {self.task.group_by[found.index(None)]} is null")
        return tuple(map(str, found))

    def bad(self, rule: str) -> UserError:
        """Return an error about the record."""
        text = f"task {self.templates.name}: {' '.join(rule.split())}"
        return UserError(self.where, None, text, "correct the record or the task's file")

    def unfit(self, key: str, rule: str) -> UserError:
        """Return an error about a setting of the task."""
        value = getattr(self.task, key)
        shown = "null" if value is None else value
        return UserError(
            f"task.{self.templates.name}.{key}", shown, rule, "correct the task's file"
        )

    @cached_property
    def _names(self) -> str:
        return ", ".join(map(str, self.record)) or "none"

    def _value(self, key: str, function: Callable[[Mapping[str, Any]], Any]) -> Any:
        try:
            found = function({"record": self.record, **self.record})
            if isinstance(found, StrictUndefined):
                str(found)  # raises the error that names the field
        except TemplateError as error:
            raise self.bad(f"{key}: {error.message}; the record has {self._names}") from error
        except Exception as error:  # of the record's values in the template: None + 1
            kind = type(error).__name__
            raise self.bad(f"{key}: {kind}: {error}; the record has {self._names}") from error
        return found
