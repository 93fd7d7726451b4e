"""Read the answers that annotators exported, and check them against the key of the study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.evaluation.side_by_side.assignment import Card
from hpc_llm.evaluation.side_by_side.study import Study
from hpc_llm.rundir import bounded_json

__all__ = ["BOTH_BAD", "CHOICES", "TIE", "Vote", "read_votes"]

TIE, BOTH_BAD = "tie", "both_bad"
CHOICES = ("left", TIE, "right", BOTH_BAD)
AGAIN = "ask the annotator to export it again, or restore the file"
LISTED = 8  # cards that an error lists
LONGEST = 1e9  # seconds


@dataclass(frozen=True, kw_only=True)
class Vote:
    """What an annotator chose on one card."""

    annotator: str
    card: Card
    choice: str
    """left, tie, right or both_bad."""
    remark: str = ""
    seconds: float | None = None
    """Time for which the card was shown."""

    @property
    def outcome(self) -> str:
        """The name of the better model, `tie` or `both_bad`."""
        sides = {"left": self.card.left, "right": self.card.right}
        return sides.get(self.choice, self.choice)

    @property
    def pair(self) -> frozenset[str]:
        """The models that were compared."""
        return frozenset((self.card.left, self.card.right))


def read_votes(study: Study, paths: Sequence[Path], *, partial: bool = False) -> list[Vote]:
    """Return the votes in exported files, in the order of the study.

    Raises `UserError` for two files of one annotator, a file of another study, an annotator or a
    card that the study does not have, a card that is answered twice, an unknown choice, and, unless
    `partial`, cards without an answer.
    """
    found: dict[str, dict[str, Vote]] = {}
    origin: dict[str, Path] = {}
    for path in paths:
        content = bounded_json(path, AGAIN)
        annotator = _annotator(path, content, study)
        if annotator in origin:
            rule = f"is a second file of annotator {annotator}, after {origin[annotator]}"
            raise UserError(str(path), None, rule, "give one file of each annotator")
        origin[annotator] = path
        found[annotator] = _votes_of(path, content, annotator, study.cards[annotator])
        if not partial:
            _refuse_missing(path, annotator, study.cards[annotator], found[annotator])
    return [
        found[annotator][card.id]
        for annotator, cards in study.cards.items()
        for card in cards
        if card.id in found.get(annotator, {})
    ]


def _annotator(path: Path, content: Mapping[str, Any], study: Study) -> str:
    """Return whose file it is. Raises `UserError` if it is none of the study."""
    if content.get("study") != study.id:
        rule = f"is of study {content.get('study')}; the key in this run is of {study.id}"
        raise UserError(str(path), None, rule, "use the run=NAME that made its page")
    annotator = str(content.get("annotator"))
    if annotator not in study.cards:
        rule = f"is of annotator {annotator}; the study has {', '.join(study.cards)}"
        raise UserError(str(path), None, rule, AGAIN)
    return annotator


def _votes_of(
    path: Path, content: Mapping[str, Any], annotator: str, cards: Sequence[Card]
) -> dict[str, Vote]:
    """Return the votes of a file by the ids of their cards."""
    known = {card.id: card for card in cards}
    answers = content.get("answers")
    if not isinstance(answers, list) or not all(isinstance(one, dict) for one in answers):
        raise UserError(str(path), None, "has no list of answers", AGAIN)
    votes: dict[str, Vote] = {}
    for number, answer in enumerate(answers, 1):
        where, name, choice = f"{path}: answer {number}", answer.get("card"), answer.get("choice")
        if not isinstance(name, str) or name not in known:
            rule = f"card {name} is none of annotator {annotator}"
            raise UserError(where, None, rule, AGAIN)
        if name in votes:
            raise UserError(where, None, f"card {name} is answered twice", AGAIN)
        if choice not in CHOICES:
            raise UserError(where, choice, f"must be one of {', '.join(CHOICES)}", AGAIN)
        votes[name] = Vote(
            annotator=annotator,
            card=known[name],
            choice=choice,
            remark=str(answer.get("remark") or "").encode(errors="replace").decode(),
            seconds=_seconds(answer.get("seconds")),
        )
    return votes


def _seconds(value: Any) -> float | None:
    """Return a time in seconds; None for anything else, NaN included."""
    return float(value) if isinstance(value, int | float) and 0 <= value < LONGEST else None


def _refuse_missing(
    path: Path, annotator: str, cards: Sequence[Card], votes: Mapping[str, Vote]
) -> None:
    missing = [str(n) for n, card in enumerate(cards, 1) if card.id not in votes]
    if missing:
        listed = ", ".join(missing[:LISTED]) + ", ..." * (len(missing) > LISTED)
        rule = f"annotator {annotator} has not answered {len(missing)} of {len(cards)} cards: "
        fix = "the page continues where it was closed; or accept it by sbs.partial=true"
        raise UserError(str(path), None, rule + listed, fix)
