"""Pages of a side-by-side study: one for each annotator, and the result.

Each is one file without any request to a network. A page for annotators has two unnamed answers per
card, and nothing from which the models could be told apart.
"""

from collections.abc import Mapping, Sequence

from hpc_llm.report.page import render

__all__ = ["annotator_page"]

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
