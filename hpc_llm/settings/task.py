"""Settings of a benchmark task (`conf/task/NAME.yaml`), read and type-checked by name."""

from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_choice
from hpc_llm.settings.corpus import LANGUAGES
from hpc_llm.settings.options import near, read_option

__all__ = ["TaskSettings", "load_task"]


@dataclass(kw_only=True)
class TaskSettings:
    """A benchmark task: its files, and how a record becomes a question with choices.

    Templates and expressions are those of jinja2 over the fields of a record, in its sandbox.
    """

    files: list[str]
    """JSONL files or patterns, also `.gz` and `.zst`; one record a line. Relative to the current
    folder, or to `evaluation.task_folder`."""
    kind: str
    """Kind of task: choice, pair or a plug-in (`hpc_llm.evaluation.tasks.kinds`)."""
    prompt: str = ""
    """Template of the text before the choices."""
    separator: str = " "
    """Text between a prompt and each choice. It is scored with the choice, but not counted in its
    bytes."""
    choices: str | list[str]
    """Templates of the choices, or an expression whose value is a list: the name of a list field.
    Of a pair: the acceptable text, then the other."""
    gold: str | None = None
    """Expression of the correct choice: its index from 0, or its text."""
    neutral_prompt: str | None = None
    """Prompt without the question, on whose score of a choice `acc_pmi` is based."""
    metric: list[str]
    """Metrics (`hpc_llm.evaluation.tasks.metrics`); the first is the measure of the task."""
    group_by: list[str] = field(default_factory=list)
    """Expressions of the groups of a record, from outer to inner. Metrics are means over groups."""
    language: str | None = None
    """Language of the task: target or source; null: neither."""
    description: str = ""
    """Name and source of the data."""


KINDS: dict[str, tuple[Any, ...]] = {
    "files": (str, list), "choices": (str, list), "metric": (str, list), "group_by": (str, list),
    "gold": (str, type(None)), "neutral_prompt": (str, type(None)), "language": (str, type(None)),
}  # fmt: skip
NAMES = {str: "text", list: "a list of texts", type(None): "null"}


def load_task(name: str) -> TaskSettings:
    """Return the settings of the task `name`, of the project or a plug-in folder.

    Raises `UserError` for an unknown task, and about `task.NAME.KEY` for an unknown or missing key
    and a value of a wrong type.
    """
    path, content = read_option("task", name, "evaluation.tasks")
    return _typed(name, path, content)


def _typed(name: str, path: Path, content: dict[Any, Any]) -> TaskSettings:
    known = {f.name: f for f in fields(TaskSettings)}
    for key in content:
        if key not in known:
            rule = f"no such setting of a task ({path})"
            raise UserError(f"task.{name}.{key}", None, rule, near(str(key), [*known]))
    needed = [
        key
        for key, f in known.items()
        if f.default is MISSING and f.default_factory is MISSING and key not in content
    ]
    if needed:
        raise UserError(f"task.{name}.{needed[0]}", None, f"has no value in {path}", "add it")
    for key, value in content.items():
        _check_type(f"task.{name}.{key}", value, KINDS.get(key, (str,)))
    for key in ("files", "metric", "group_by"):
        if isinstance(content.get(key), str):
            content[key] = [content[key]]
    for key in ("files", "choices", "metric"):
        if not content[key]:
            raise UserError(f"task.{name}.{key}", content[key], "is empty", "give one or more")
    if content.get("language") is not None:
        require_choice(f"task.{name}.language", content["language"], LANGUAGES)
    return TaskSettings(**content)


def _check_type(key: str, value: Any, kinds: tuple[Any, ...]) -> None:
    """Raise `UserError` unless `value` has one of the types; lists hold texts."""
    fits = isinstance(value, kinds)
    if fits and isinstance(value, list):
        fits = all(isinstance(entry, str) for entry in value)
    if not fits:
        rule = f"must be {' or '.join(NAMES[kind] for kind in kinds)}"
        raise UserError(key, "null" if value is None else value, rule, "put texts in quotes")
