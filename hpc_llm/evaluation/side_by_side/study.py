"""The questions of a study and its key: who sees which answers of which model where."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.evaluation.side_by_side.assignment import Card
from hpc_llm.evaluation.tasks.readers import records
from hpc_llm.rundir import bounded_json, fingerprint

__all__ = ["Study", "read_questions"]

KEY = "sbs.questions"


def read_questions(path: str) -> dict[str, str]:
    """Return the questions of a JSON Lines file by id, in order; without `id`, the line number.

    Raises `UserError` for a missing file, a line without a text `question`, an id that is given
    twice, and a file without questions.
    """
    if not Path(path).is_file():
        raise UserError(KEY, path, "no such file", "give a JSON Lines file with questions")
    found: dict[str, str] = {}
    for where, record in records(Path(path)):
        name, text = _question(where, record)
        if name in found:
            raise UserError(where, None, f"id {name} is given twice", "give each question its own")
        found[name] = text
    if not found:
        raise UserError(KEY, path, "has no questions", 'write lines like {"question": "..."}')
    return found


def _question(where: str, record: Mapping[str, Any]) -> tuple[str, str]:
    """Return the id and the text of a record; `where` is FILE:LINE."""
    text = record.get("question")
    if not isinstance(text, str) or not text.strip():
        rule = f"lacks a text in the field question; its fields are {', '.join(record) or 'none'}"
        raise UserError(where, None, rule, 'write {"question": "..."}')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        rule = f"its text is not valid Unicode ({error.reason})"
        raise UserError(where, None, rule, "fix the line") from error
    return str(record.get("id", where.rsplit(":", 1)[1])), text


@dataclass(frozen=True, kw_only=True)
class Study:
    """The key of a study: it names the models behind the answers."""

    made_from: str
    """Fingerprint of the models, the questions and the settings."""
    models: Mapping[str, Mapping[str, str]]
    """By name: `path` and `content`, the fingerprint of the model."""
    lengths: Mapping[str, Mapping[str, int]]
    """Characters of each answer by question and model."""
    answers: str
    """Fingerprint of all questions and answers."""
    cards: Mapping[str, Sequence[Card]]
    """Cards by annotator, in the order of the page."""

    @property
    def id(self) -> str:
        """Fingerprint of the key: pages and answer files carry it."""
        return fingerprint(self._content())

    def _content(self) -> dict[str, Any]:
        cards = {name: [asdict(card) for card in own] for name, own in self.cards.items()}
        return {
            "made_from": self.made_from,
            "models": self.models,
            "lengths": self.lengths,
            "answers": self.answers,
            "cards": cards,
        }

    def as_json(self) -> dict[str, Any]:
        """Return the content of `key.json`."""
        return {"study": self.id, **self._content()}

    @classmethod
    def load(cls, path: Path) -> "Study":
        """Read `key.json`. Raises `UserError` if it is missing, damaged or was edited."""
        if not path.is_file():
            fix = "use the run=NAME and runs_dir of the study"
            raise UserError(str(path), None, "no such file: there is no study here", fix)
        found = bounded_json(path, "restore it from a copy")
        try:
            cards = {name: [Card(**card) for card in own] for name, own in found["cards"].items()}
            parts = {key: found[key] for key in ("made_from", "models", "lengths", "answers")}
        except (KeyError, TypeError, AttributeError) as error:
            rule = f"is not the key of a study ({error})"
            raise UserError(str(path), None, rule, "restore it from a copy") from error
        study = cls(cards=cards, **parts)
        if found.get("study") != study.id:
            rule = "was edited: its content does not match its study id"
            raise UserError(str(path), None, rule, "restore it from a copy")
        return study
