"""Stage `evaluate/POINT`: measures on held-out text at one point of the recipe, by all ranks."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import torch

from hpc_llm.distributed import say
from hpc_llm.errors import Diverged, UserError
from hpc_llm.evaluation.bits_per_byte import Bpb, measure_bpb_of_each, pooled
from hpc_llm.evaluation.bootstrap import DocumentLosses
from hpc_llm.evaluation.measures import (
    Evaluated,
    Measure,
    bits_per_byte_measures,
    forgetting_measures,
    language_view,
    load_losses,
    save_losses,
    task_measures,
)
from hpc_llm.evaluation.samples import continue_texts
from hpc_llm.evaluation.tasks.evaluate import Place, evaluate_task, partial_file
from hpc_llm.evaluation.tasks.files import changes_at
from hpc_llm.evaluation.tasks.scorer import Scorer
from hpc_llm.evaluation.tasks.submission import write_archive
from hpc_llm.evaluation.tasks.suites import suite_measures
from hpc_llm.pipeline.context import Context
from hpc_llm.pipeline.table import point_of
from hpc_llm.rundir import write_json
from hpc_llm.settings import EvaluationSettings
from hpc_llm.settings.corpus import LANGUAGES, CorpusSettings
from hpc_llm.stages.assemble import model_at, tokenizer_at, vocabulary_rows
from hpc_llm.stages.texts import encoder, first_token, heldout, heldout_note
from hpc_llm.surgery.loading import gathered, load_tokenizer
from hpc_llm.tracking.events import plain
from hpc_llm.training.process_group import agreed, on_first_rank

__all__ = ["MEASURES", "evaluated_at", "require_finite", "run"]

MEASURES: tuple[Callable[[Evaluated], dict[str, Measure]], ...] = (
    bits_per_byte_measures,
    forgetting_measures,
    task_measures,
)
"""Measures computed at every point; views show them in this order."""

T = TypeVar("T")

PROMPTS, PROMPT_WORDS, SAMPLE_TOKENS = 3, 6, 80
LINE_MEASURES = 3  # in the log line of the stage


def run(context: Context, name: str) -> dict[str, Any]:
    """Write evaluate/POINT.json (measures), .npz (loss per test document) and tasks' results.

    All ranks compute; rank 0 writes.
    """
    with evaluated_at(context, point_of(name)) as evaluated:
        found = [measure for function in MEASURES for measure in function(evaluated).items()]
        measures = {key: measure.as_dict() for key, measure in found}
    return on_first_rank(lambda: _write(context, name, evaluated, measures))


def _write(
    context: Context, name: str, evaluated: Evaluated, measures: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    result: dict[str, Any] = {"measures": measures, **language_view(evaluated.losses)}
    if evaluated.samples:
        result["samples"] = evaluated.samples
    result["line"] = _line(measures) + evaluated.note
    result = plain(result)  # NaN becomes null
    save_losses(context.folder.path / f"{name}.npz", evaluated.losses)
    write_json(context.folder.path / f"{name}.json", result)
    point = point_of(name)
    context.events.append("evaluate", stage=point, axes={}, metrics=_metrics(measures))
    return result


@contextmanager
def evaluated_at(context: Context, point: str) -> Iterator[Evaluated]:
    """Load the model at `point`, score the test documents and tasks, continue prompts."""
    cfg = context.cfg
    where = tokenizer_at(context, point)
    with model_at(context, point) as model:
        tokenizer, texts = agreed(lambda: (load_tokenizer(where, cfg.model), _texts(context)))
        rows = vocabulary_rows(model)
        encode = encoder(tokenizer, cfg.tokenizer.special_strings, rows)
        first = first_token(tokenizer, rows)
        losses = measure_bpb_of_each(model, encode, texts, cfg.evaluation, first, cfg.seed)
        losses = _with_languages(cfg.corpus, losses, partial(pooled, seed=cfg.seed))
        texts = _with_languages(cfg.corpus, texts, lambda own: list(chain(*own)))
        agreed(lambda: require_finite(model, point, losses, cfg.model.path))
        scorer = Scorer(model, tokenizer, encode, first, cfg.evaluation)
        corrected = point == "corrected"
        yield Evaluated(
            model=model,
            tokenizer=tokenizer,
            texts=texts,
            losses=losses,
            known=tuple(dict.fromkeys([*LANGUAGES[1:], *cfg.corpus.texts_in("source")])),
            base=on_first_rank(lambda: None if point == "base" else _losses_of_base(context)),
            seed=cfg.seed,
            tasks=_tasks(context, point, scorer),
            task_changes=on_first_rank(lambda: _changes(context, point)),
            samples=_samples(scorer, texts) if corrected else [],
            note=heldout_note(context, "test"),
        )


def _texts(context: Context) -> dict[str, list[str]]:
    """Return the test documents of each text that has any."""
    texts = {name: heldout(context, name, "test") for name in context.cfg.corpus.evaluated}
    return {name: documents for name, documents in texts.items() if documents}


def _with_languages(
    corpus: CorpusSettings, found: Mapping[str, T], pool: Callable[[list[T]], T]
) -> dict[str, T]:
    """Return what was found of each text, and before it that of all sources in target and source.

    Without sources, target and source are texts themselves.
    """
    members = {name: [found[t] for t in corpus.texts_in(name) if t in found] for name in LANGUAGES}
    pools = {name: pool(own) for name, own in members.items() if own and name not in found}
    return pools | dict(found)


def _losses_of_base(context: Context) -> dict[str, DocumentLosses]:
    return load_losses(context.folder.path / "evaluate/base.npz")


def _tasks(context: Context, point: str, scorer: Scorer) -> dict[str, Measure]:
    """Evaluate the tasks of a point and their suites; scores survive an interruption."""
    settings, stage = context.cfg.evaluation, context.stage(f"evaluate/{point}")
    names = settings.tasks_at(point)
    place = Place(
        folder=context.stage_folder(stage.name),
        fingerprint=stage.fingerprint,
        stop_reason=context.stop_reason,
    )
    given = {name: evaluate_task(name, scorer, place, context.cfg.seed) for name in names}
    found = {name: measure for name, measure in given.items() if measure is not None}
    if context.ranks.is_first:
        _archive(settings, names, place)
        for name in names:
            partial_file(place, name).unlink(missing_ok=True)
    return found | suite_measures(found, {name: settings.task(name).suite for name in names})


def _archive(settings: EvaluationSettings, names: list[str], place: Place) -> None:
    """Write the answers to the tasks whose answers are hidden, if there are any."""
    tasks = {name: settings.task(name) for name in names}
    answered = {name: task.submission for name, task in tasks.items() if settings.submits(task)}
    if answered:
        archive = write_archive(place.folder, {name: str(own) for name, own in answered.items()})
        say(f"  answers for {len(answered)} tasks: {archive}")


def _changes(context: Context, point: str) -> dict[str, Measure]:
    folder = context.stage_folder(f"evaluate/{point}")
    return changes_at(folder, context.cfg.evaluation.tasks_at(point))


def require_finite(model: Any, point: str, losses: Mapping[str, Bpb], path: str | None) -> None:
    """Raise `Diverged` for a loss that is NaN or infinite, with the first such weight.

    At the point `base` raise `UserError` with `path`, the base model's folder or hub id.
    """
    language = next((name for name, loss in losses.items() if not math.isfinite(loss.value)), None)
    if language is None:
        return
    weight = next((name for name, value in model.named_parameters() if not _is_finite(value)), None)
    found = "all its weights are finite" if weight is None else f"{weight} is NaN or infinite"
    rule = f"its loss on the held-out {language} text is NaN or infinite; {found}"
    if point == "base" and path is not None:
        fix = "use train.precision=fp32" if weight is None else "use other weights"
        raise UserError("model.path", path, rule, fix)
    raise Diverged(
        f"evaluate/{point}: {rule}; use train.precision=bf16 if it is fp16, or train with a "
        "smaller learning rate"
    )


def _is_finite(value: torch.Tensor) -> bool:
    with gathered([value], write=False):
        return bool(value.isfinite().all())


def _line(measures: dict[str, dict[str, Any]]) -> str:
    """Return the log line: the first measures with their intervals."""
    parts = []
    for name, measure in list(measures.items())[:LINE_MEASURES]:
        low, high = measure["low"], measure["high"]
        interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
        parts.append(f"{name} {measure['value']:.4f}{interval}")
    return "  ".join(parts)


def _metrics(measures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the metrics of the event: each measure, and the bounds of its interval."""
    metrics = {}
    for name, measure in measures.items():
        metrics[name] = measure["value"]
        if measure["low"] is not None:
            metrics |= {f"{name}_low": measure["low"], f"{name}_high": measure["high"]}
    return metrics


def _samples(scorer: Scorer, texts: Mapping[str, list[str]]) -> list[dict[str, str]]:
    """Continue the first words of a few test documents of the target language."""
    chosen = texts[LANGUAGES[0]][:PROMPTS]
    prompts = [" ".join(text.split()[:PROMPT_WORDS]) for text in chosen]
    model, tokenizer = scorer.model, scorer.tokenizer
    continued = continue_texts(model, tokenizer, prompts, SAMPLE_TOKENS, scorer.encode)
    return [
        {"prompt": prompt, "text": text, "stage": "corrected"}
        for prompt, text in zip(prompts, continued, strict=True)
    ]
