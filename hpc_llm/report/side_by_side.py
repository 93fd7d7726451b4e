"""Pages of a side-by-side study: one for each annotator, and the result.

Each is one file without any request to a network. A page for annotators has two unnamed answers per
card, and nothing from which the models could be told apart.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hpc_llm.report.page import render
from hpc_llm.report.text import decimal, interval

__all__ = ["annotator_page", "result_lines", "result_page"]

WORDS = {
    "en": {
        "title": "Which answer is better?",
        "left": "Left is better",
        "tie": "Equally good",
        "right": "Right is better",
        "both_bad": "Both are bad",
        "remark": "Remark (optional)",
        "back": "Back",
        "next": "Next",
        "export": "Save answers to a file",
        "done": "All questions are answered. Save the answers to a file and send it back.",
        "open": "Not answered yet:",
        "question": "Question",
        "answer": "Answer",
        "hint": "Keys: 1 left, 2 equal, 3 right, 4 both bad; arrows for back and next. "
        "Answers are kept in this browser: the page can be closed and opened again.",
        "unsaved": "This browser does not keep answers (private window?): do not close the page "
        "before you have saved them to a file.",
    },
    "ru": {
        "title": "Какой ответ лучше?",
        "left": "Лучше левый",
        "tie": "Одинаково хороши",
        "right": "Лучше правый",
        "both_bad": "Оба плохи",
        "remark": "Замечание (необязательно)",
        "back": "Назад",
        "next": "Дальше",
        "export": "Сохранить ответы в файл",
        "done": "Все вопросы отвечены. Сохраните ответы в файл и отправьте его.",
        "open": "Ещё нет ответа:",
        "question": "Вопрос",
        "answer": "Ответ",
        "hint": "Клавиши: 1 левый, 2 одинаково, 3 правый, 4 оба плохи; стрелки: назад и дальше. "
        "Ответы хранятся в этом браузере: страницу можно закрыть и открыть снова.",
        "unsaved": "Этот браузер не хранит ответы (приватное окно?): не закрывайте страницу, "
        "пока не сохраните ответы в файл.",
    },
}


def annotator_page(
    study: str, annotator: str, cards: Sequence[Mapping[str, str]], language: str
) -> str:
    """Return the page of an annotator.

    `study` is its id; `cards` have `id`, `question`, `left` and `right`, all texts that are shown.
    """
    content = {"study": study, "annotator": annotator, "cards": list(cards)}
    words = WORDS[language]
    page = {"language": language, "words": words, "data": content | {"words": words}}
    return render("sbs_annotator.html.j2", page)


def result_page(result: Mapping[str, Any], name: str) -> str:
    """Return the page of a result (`sbs/result.json`) of the run `name`."""
    content = {
        "name": name,
        "result": result,
        "facts": _facts(result),
        "pairs": [_pair(one) for one in result["pairs"]],
        "strengths": {key: interval(one) for key, one in result["strengths"]["models"].items()},
        "annotators": [_annotator(key, one) for key, one in result["by_annotator"].items()],
    }
    return render("sbs_result.html.j2", content)


def result_lines(result: Mapping[str, Any]) -> list[str]:
    """Return the result as lines for the console."""
    lines = [
        f"{one['model']} against {one['against']}: win rate {interval(one['win_rate'])}, "
        f"{_outcomes(one)}; {_sign(one['sign_test'])}"
        for one in result["pairs"]
    ]
    return lines + [f"{label}: {text}" for label, text, _ in _facts(result)]


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (label, value, meaning) of the measures of reliability and bias."""
    facts = [
        (
            "Agreement of annotators",
            interval(result["agreement"]),
            "Krippendorff's alpha over model, tie and both bad; 1 is full agreement, 0 is chance",
        ),
        (
            "Self-agreement",
            interval(result["self_agreement"]),
            "share of repeats, sides swapped, with the same outcome",
        ),
        (
            "Left among decided votes",
            interval(result["position"]),
            "0.5 without a bias for a side; sides are balanced, so it does not favour a model",
        ),
        (
            "Win rate of the longer answer",
            interval(result["length"]),
            "above 0.5: longer answers were preferred, or the better model writes more",
        ),
    ]
    if missing := result["missing_annotators"]:
        facts.append(("Annotators without a file", ", ".join(missing), "their votes are missing"))
    return facts


def _outcomes(pair: Mapping[str, Any]) -> str:
    return (
        f"{pair['wins']} wins, {pair['losses']} losses, {pair['ties']} ties, "
        f"{pair['both_bad']} both bad"
    )


def _sign(test: Mapping[str, Any]) -> str:
    text = f"better on {test['better']} questions, worse on {test['worse']}"
    return text if test["p"] is None else f"{text} (sign test p {test['p']:.2g})"


def _pair(pair: Mapping[str, Any]) -> dict[str, Any]:
    """Return the texts of a pair, and the shares of its outcomes in percent."""
    parts = ("wins", "ties", "both_bad", "losses")
    votes = max(1, sum(pair[part] for part in parts))
    return {
        "label": f"{pair['model']} against {pair['against']}",
        "win_rate": interval(pair["win_rate"]),
        "outcomes": _outcomes(pair),
        "sign": _sign(pair["sign_test"]),
        "shares": {part: 100 * pair[part] / votes for part in parts},
    }


def _annotator(name: str, own: Mapping[str, Any]) -> list[str]:
    """Return the cells of an annotator."""
    keys = ("votes", "left", "right", "ties", "both_bad")
    rates = ("agreement", "self_agreement")
    return [
        name,
        *(str(own[key]) for key in keys),
        *(decimal(own[key], 2) for key in rates),
        decimal(own["median_seconds"], 1),
    ]
