"""Make a side-by-side study: generate the answers of each model, and write pages and key.

`sbs/answers.jsonl` gets a line for every answer as soon as it is there, so an interrupted call
continues. Pages and key are written when all answers are there.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from hpc_llm.distributed import say
from hpc_llm.ensembles import model_folder, naming, settings_for
from hpc_llm.errors import UserError
from hpc_llm.evaluation.side_by_side import Card, Design, Study, assign
from hpc_llm.report.side_by_side import annotator_page
from hpc_llm.rundir import (
    append_line,
    fingerprint,
    fingerprint_path,
    read_jsonl,
    write_json,
    write_text,
)
from hpc_llm.settings import RunConfig
from hpc_llm.surgery.folders import check_model_folder
from hpc_llm.surgery.hub import check_hub_id
from hpc_llm.surgery.trust import check_model_files

__all__ = ["KEY_FILE", "StudyModel", "StudyPlan", "find_models", "make_study", "plan_study"]

KEY_FILE = "key.json"
READ = (".safetensors", ".json", ".model", ".txt", ".jinja")
"""Endings of the files of a model on which its answers depend."""

Answers = dict[str, dict[str, str]]
"""`answers[QUESTION][MODEL]`."""


@dataclass(frozen=True, kw_only=True)
class StudyModel:
    """A model of the study."""

    name: str
    path: str
    """Folder, or hub id."""
    content: str
    """Fingerprint of its files; of a hub id that of the id and the revision."""


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """What a study is made of, before any answer is there."""

    models: Sequence[StudyModel]
    questions: Mapping[str, str]
    answering: str
    """Fingerprint of the settings on which answers depend."""
    cards: Mapping[str, Sequence[Card]]
    made_from: str
    """Fingerprint of all of it."""


def find_models(cfg: RunConfig) -> list[StudyModel]:
    """Return the models of `sbs.models`, without loading them.

    Raises `UserError` for fewer than two, one that cannot be read, and two that are equal.
    """
    if len(cfg.sbs.models) < 2:
        rule = f"names {len(cfg.sbs.models)} models; two or more are compared"
        raise UserError("sbs.models", None, rule, "sbs.models='{base: runs/A, ours: runs/B}'")
    found: dict[str, StudyModel] = {}
    for name, given in cfg.sbs.models.items():
        key = f"sbs.models.{name}"
        one = _find(cfg, name, model_folder(key, given))
        if one.content in found:
            rule = f"is the same model as sbs.models.{found[one.content].name}"
            raise UserError(key, given, rule, "compare different models")
        found[one.content] = one
    return list(found.values())


def _find(cfg: RunConfig, name: str, path: str) -> StudyModel:
    settings = settings_for(path, cfg.model)
    with naming(f"sbs.models.{name}", path):
        check_hub_id(settings)
        check_model_folder(path)
        check_model_files(path, settings)
    folder = Path(os.path.expanduser(path))
    if not folder.is_dir():
        return StudyModel(name=name, path=path, content=fingerprint(path))
    files = sorted(file for file in folder.iterdir() if file.suffix in READ)
    content = fingerprint([[file.name, fingerprint_path(file)] for file in files])
    return StudyModel(name=name, path=str(folder.resolve()), content=content)


def plan_study(
    cfg: RunConfig, folder: Path, models: Sequence[StudyModel], questions: Mapping[str, str]
) -> StudyPlan:
    """Return what the study in `folder` is made of and who sees what, before any answer is there.

    Raises `UserError` for a design that cannot be, and if `folder` has another study.
    """
    sbs = cfg.sbs
    design = Design(
        annotators=sbs.annotators,
        per_question=sbs.per_question,
        repeats=sbs.repeats,
        seed=cfg.seed,
    )
    generation = [sbs.prompt, sbs.chat, sbs.max_new_tokens, sbs.temperature, cfg.train.precision]
    answering = fingerprint(cfg.seed, generation)
    named = [[one.name, one.content] for one in models]
    plan = StudyPlan(
        models=models,
        questions=questions,
        answering=answering,
        cards=assign(list(questions), [one.name for one in models], design),
        made_from=fingerprint(named, list(questions.items()), design, answering),
    )
    if (folder / KEY_FILE).exists() and Study.load(folder / KEY_FILE).made_from != plan.made_from:
        raise _other_study(folder)
    return plan


def make_study(cfg: RunConfig, folder: Path, plan: StudyPlan) -> Study:
    """Generate the answers that are missing in `folder`, and write `annotators/` and `key.json`.

    Raises `UserError` if the models answer every question alike, or if answers have been generated
    again and differ from those that annotators may already have seen.
    """
    answers = _answers(cfg, folder / "answers.jsonl", plan)
    names = [one.name for one in plan.models]
    _check_answers(answers, names)
    study = Study(
        made_from=plan.made_from,
        models={one.name: {"path": one.path, "content": one.content} for one in plan.models},
        lengths={q: {name: len(own[name]) for name in names} for q, own in answers.items()},
        answers=fingerprint(list(plan.questions.items()), answers),
        cards=plan.cards,
    )
    if (folder / KEY_FILE).exists() and Study.load(folder / KEY_FILE).id != study.id:
        raise _other_study(folder)
    write_json(folder / KEY_FILE, study.as_json())
    for annotator, cards in plan.cards.items():
        shown = [_shown(card, plan.questions, answers) for card in cards]
        page = annotator_page(study.id, annotator, shown, cfg.sbs.language)
        write_text(folder / "annotators" / f"{annotator}.html", page)
    return study


def _shown(card: Card, questions: Mapping[str, str], answers: Answers) -> dict[str, str]:
    """Return what a page holds of a card."""
    own = answers[card.question]
    texts = {"left": own[card.left], "right": own[card.right]}
    return {"id": card.id, "question": questions[card.question]} | {
        side: text.strip() for side, text in texts.items()
    }


def _other_study(folder: Path) -> UserError:
    rule = "holds a study of other models, questions, answers or settings"
    fix = "use another run=NAME; if no page was given out, remove this folder"
    return UserError(str(folder), None, rule, fix)


def _check_answers(answers: Answers, names: Sequence[str]) -> None:
    """Raise `UserError` if all models answer alike; warn of equal answers and of answers with a
    model's name."""
    for first, second in combinations(names, 2):
        equal = sum(own[first] == own[second] for own in answers.values())
        if equal == len(answers):
            rule = f"{first} and {second} give the same answer to all {equal} questions"
            raise UserError("sbs.models", None, rule, "compare models that differ")
        if equal:
            say(f"{first} and {second} give the same answer to {equal} of {len(answers)} questions")
    for name in names:
        told = [q for q, own in answers.items() if any(_has(text, name) for text in own.values())]
        if told:
            say(
                f"the name {name} occurs in answers to {len(told)} questions: {', '.join(told[:5])}"
            )


def _has(text: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE) is not None


def _answers(cfg: RunConfig, file: Path, plan: StudyPlan) -> Answers:
    """Return all answers; those that `file` lacks are generated and added to it one by one."""
    known = {line["key"]: line["answer"] for line in read_jsonl(file) if "key" in line}
    answers: Answers = {question: {} for question in plan.questions}
    for one in plan.models:
        keys = {
            question: fingerprint(one.content, plan.answering, question, text)
            for question, text in plan.questions.items()
        }
        todo = [question for question, key in keys.items() if key not in known]
        if todo:
            say(f"{one.name}: {len(todo)} of {len(keys)} answers to generate")
            file.parent.mkdir(parents=True, exist_ok=True)
            answer = _answering(cfg, one)
            for question in todo:
                text = answer(question, plan.questions[question])
                line = {"key": keys[question], "question": question, "model": one.name}
                append_line(file, {**line, "answer": text})
                known[keys[question]] = text
        for question, key in keys.items():
            answers[question][one.name] = known[key]
    return answers


def _answering(cfg: RunConfig, one: StudyModel) -> Callable[[str, str], str]:
    """Load a model; return the function from the id and the text of a question to its answer."""
    from hpc_llm.evaluation.samples import continue_ids
    from hpc_llm.surgery.loading import load_model, load_tokenizer
    from hpc_llm.training.process_group import device_of

    sbs, settings = cfg.sbs, settings_for(one.path, cfg.model)
    with naming(f"sbs.models.{one.name}", one.path):
        tokenizer = load_tokenizer(one.path, settings)
        encode = _prompt_encoder(one, tokenizer, sbs.chat)
        model = load_model(one.path, settings, cfg.train.precision).to(device_of())

    def answer(question: str, text: str) -> str:
        seed = int(fingerprint(cfg.seed, question), 16) % 2**32
        ids = encode(sbs.prompt.replace("{question}", text))
        try:
            return continue_ids(
                model, tokenizer, ids, sbs.max_new_tokens, temperature=sbs.temperature, seed=seed
            )
        except UserError as error:
            rule = f"{one.name}: the prompt of question {question}: {error.rule}"
            raise UserError("sbs.questions", sbs.questions, rule, error.fix) from error

    return answer


def _prompt_encoder(one: StudyModel, tokenizer: Any, chat: bool) -> Callable[[str], list[int]]:
    """Return the function from a prompt to its ids: after BOS, or in the chat template."""
    from hpc_llm.tokenizer.text import first_token, text_encoder

    if not chat:
        encode, first = text_encoder(tokenizer), first_token(tokenizer)
        start = [] if first is None else [first]
        return lambda text: start + encode([text])[0]
    if not tokenizer.chat_template:
        rule, fix = "its tokenizer has no chat template", "use sbs.chat=false"
        raise UserError(f"sbs.models.{one.name}", one.path, rule, fix)

    def wrapped(text: str) -> list[int]:
        messages = [{"role": "user", "content": text}]
        found = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True
        )
        ids: list[int] = found["input_ids"]
        return ids

    return wrapped
