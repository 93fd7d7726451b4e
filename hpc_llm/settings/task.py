"""Settings of a benchmark task (`conf/task/NAME.yaml`), read and type-checked by name."""

from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_choice, require_positive
from hpc_llm.settings.corpus import LANGUAGES
from hpc_llm.settings.options import near, read_option

__all__ = ["TaskSettings", "load_task"]


@dataclass(kw_only=True)
class TaskSettings:
    """A benchmark task: its files, and how a record becomes a question with choices.

    Templates and expressions are those of jinja2 over the fields of a record, in its sandbox.
    """

    files: list[str]
    """JSONL or CSV files or patterns, also `.gz` and `.zst`; one record a line. Relative to the
    current folder, or to `evaluation.task_folder`."""
    kind: str
    """Kind of task: choice, classify, cloze, generate, pair, rolling or a plug-in
    (`hpc_llm.evaluation.tasks.kinds`)."""
    prompt: str = ""
    """Template of the text before the choices."""
    separator: str = " "
    """Text between a prompt and each choice. It is scored with the choice, but not counted in its
    bytes."""
    choices: str | list[str] = field(default_factory=list)
    """Templates of the choices, or an expression whose value is a list: the name of a list field.
    Of a pair: the acceptable text, then the other."""
    labels: list[str] = field(default_factory=list)
    """Values of `gold` that the choices of a classification stand for, as the file writes them."""
    gold: str | None = None
    """Expression of the correct choice: its index from 0, or its text. Of kinds judged by text:
    the accepted answer, or a list of them."""
    each: list[str] = field(default_factory=list)
    """Expressions of nested lists of objects in a record, from outer to inner: each innermost
    object is a question, with the fields of those around it."""
    variants: list[dict[str, str]] = field(default_factory=list)
    """Ways to ask a record: names of additional fields and their expressions. Each way is a
    question; those of a record are one unit of the intervals."""
    preamble: str = ""
    """Template of the text before the examples, or before the prompt if there are none."""
    shots: int = 0
    """Solved examples before each question (few-shot)."""
    shots_from: list[str] = field(default_factory=list)
    """Files of the examples, as `files`; empty: the first records of `files`, which are then no
    questions."""
    shots_by: str | None = None
    """Expression whose value a question and its examples have in common, such as the subject."""
    max_new_tokens: int = 32
    """Longest generated answer, in tokens."""
    until: list[str] = field(default_factory=lambda: ["\n"])
    """Texts that end a generated answer."""
    neutral_prompt: str | None = None
    """Prompt without the question, on whose score of a choice `acc_pmi` is based."""
    metric: list[str]
    """Metrics (`hpc_llm.evaluation.tasks.metrics`); the first is the measure of the task."""
    mean_of: list[str] = field(default_factory=list)
    """Metrics whose mean is the measure of the task, instead of the first one."""
    suite: str | None = None
    """Name of a suite: the mean over those of its tasks that are evaluated is a measure, too."""
    group_by: list[str] = field(default_factory=list)
    """Expressions of the groups of a record, from outer to inner. Metrics are means over groups."""
    submission: str | None = None
    """Name of the task in an archive of answers for a benchmark with hidden answers (MERA)."""
    submission_id: str = "meta.id"
    """Expression of the id of a record in that archive."""
    language: str | None = None
    """Language of the task: target or source; null: neither."""
    description: str = ""
    """Name and source of the data."""


LISTS = ("files", "metric", "group_by", "labels", "each", "until", "mean_of", "shots_from")
TYPES: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys((*LISTS, "choices"), (str, list)),
    **dict.fromkeys(
        ("gold", "neutral_prompt", "language", "suite", "shots_by", "submission"), (str, type(None))
    ),
    "variants": (dict,),
    **dict.fromkeys(("max_new_tokens", "shots"), (int,)),
}
NAMES = {
    str: "text",
    list: "a list of texts",
    type(None): "null",
    int: "an integer",
    dict: "a list of mappings of texts",
}


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
        _check_type(f"task.{name}.{key}", value, TYPES.get(key, (str,)))
    for key in LISTS:
        if isinstance(content.get(key), str):
            content[key] = [content[key]]
    _check_values(name, content)
    return TaskSettings(**content)


def _check_values(name: str, content: dict[Any, Any]) -> None:
    """Raise `UserError` for values of the right type that mean nothing."""
    for key in ("files", "metric"):
        if not content[key]:
            raise UserError(f"task.{name}.{key}", content[key], "is empty", "give one or more")
    if content.get("shots", 0) < 0:
        raise UserError(f"task.{name}.shots", content["shots"], "must be 0 or more", "use 0")
    require_positive(f"task.{name}.max_new_tokens", content.get("max_new_tokens", 1))
    for metric in content.get("mean_of", []):
        if metric not in content["metric"]:
            fix = f"choose from {', '.join(content['metric'])}"
            raise UserError(f"task.{name}.mean_of", metric, "is not in metric", fix)
    if content.get("language") is not None:
        require_choice(f"task.{name}.language", content["language"], LANGUAGES)


def _check_type(key: str, value: Any, types: tuple[Any, ...]) -> None:
    """Raise `UserError` unless `value` has one of the types; lists hold texts."""
    if not any(_is_of(value, wanted) for wanted in types):
        rule = f"must be {' or '.join(NAMES[kind] for kind in types)}"
        raise UserError(key, "null" if value is None else value, rule, "put texts in quotes")


def _is_of(value: Any, wanted: Any) -> bool:
    if wanted is list:
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    if wanted is dict:
        return isinstance(value, list) and all(map(_is_mapping, value))
    return isinstance(value, wanted) and not isinstance(value, bool)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(e, str) for pair in value.items() for e in pair
    )
