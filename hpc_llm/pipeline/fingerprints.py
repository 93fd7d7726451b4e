"""Fingerprints of stages: everything on which the result of each stage depends.

A stage's fingerprint covers the settings that affect it and the fingerprints of the stages it
needs. So a changed setting invalidates the stages that depend on it and no others. The number of
ranks, the logging interval and the tracker do not affect results and are not covered; nor are
settings without effect in a stage, such as the weight decay of adapters in a stage without any.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc_llm.corpus import expand_entries
from hpc_llm.corpus.counting import OF_CLEANING, contents, counting
from hpc_llm.ensembles import code_of as composition_code
from hpc_llm.ensembles import composition, model_folder
from hpc_llm.methods import code_of as method_code
from hpc_llm.methods import trains
from hpc_llm.pipeline.table import COMPOSED, Entry, choose_names, outline, point_of, training_texts
from hpc_llm.pipeline.tasks import check_task_points, counting_tasks, without_tasks
from hpc_llm.pipeline.texts import check_texts
from hpc_llm.pipeline.tokenizer_settings import measuring_settings, vocabulary_settings
from hpc_llm.rundir import fingerprint, fingerprint_path, flat
from hpc_llm.settings import RunConfig, ScheduleSettings
from hpc_llm.settings.corpus import LANGUAGES
from hpc_llm.settings.mixture import portions
from hpc_llm.settings.stage import SCRATCH, UNTRAINED
from hpc_llm.surgery.folders import check_model_folder
from hpc_llm.training.checkpoints.differences import CONTENT
from hpc_llm.vocabulary.initial import code_of as initial_code
from hpc_llm.vocabulary.modes import OF_MODES, mode_of, mode_settings

__all__ = ["Stage", "choose", "pipeline"]

LAYOUT = 2  # increment when the files of a stage change, so that old results are recomputed

OF_TEXT = ("corpus", "tokenizer")  # modules of stages that depend on `corpus.seed`
OF_SOURCES = ("sources", "source_languages", "temperature")
NOT_IN_RESULTS = ("micro_batch_tokens", "log_steps", "max_hours", "threads", "steps", "replay")
SHAPE = ("sequence_length", "batch_tokens", "micro_batch_tokens", "schedule", "text", "from_stage")


@dataclass(frozen=True, kw_only=True)
class Stage(Entry):
    """A stage of a run with the inputs of its result."""

    fingerprint: str
    settings: dict[str, Any]
    """Settings behind the fingerprint, as `stages.lora.rank`, including those of needed stages."""
    upstream: tuple[str, ...] = ()
    """All stages on whose results it depends, directly or through others, in order."""

    @property
    def all_ranks(self) -> bool:
        """Whether every rank takes part; otherwise rank 0 works and the others wait."""
        return self.row.all_ranks

    @property
    def trains(self) -> bool:
        """Whether it is a training stage, with batches and checkpoints."""
        return self.row.trains

    @property
    def verb(self) -> str:
        """The verb that runs it alone."""
        return self.row.verb


def pipeline(cfg: RunConfig) -> list[Stage]:
    """Return the stages of `cfg`.

    Reads the corpus files and the model folder for their fingerprints; writes nothing. Raises
    `UserError` if a file is missing, or if the model's weights are neither given nor created by the
    recipe.
    """
    if cfg.compose is None:
        check_texts(cfg)
    else:
        composition(cfg.compose.kind).check(cfg.compose, cfg)
    entries = outline(cfg)
    check_task_points(cfg, [point_of(e.name) for e in entries if e.row.module == "evaluate"])
    stages: dict[str, Stage] = {}
    bare: dict[str, str] = {}  # without tasks: later evaluations read only the losses of the base
    for entry in entries:
        own = COUNTING[entry.row.module](cfg, point_of(entry.name))
        of_texts = entry.row.module == "evaluate"
        before = [bare[n] if of_texts else stages[n].fingerprint for n in entry.needs]
        losses = {key: value for key, value in own.items() if key != "tasks"}
        seed = cfg.text_seed if entry.row.module in OF_TEXT else cfg.seed
        bare[entry.name] = fingerprint(LAYOUT, entry.name, seed, losses, before)
        known: dict[str, Any] = {"seed": seed}
        upstream: set[str] = set(entry.needs)
        for need in entry.needs:
            known |= stages[need].settings
            upstream |= set(stages[need].upstream)
        stages[entry.name] = Stage(
            **{key: getattr(entry, key) for key in Entry.__dataclass_fields__},
            fingerprint=fingerprint(LAYOUT, entry.name, seed, own, before),
            settings=known | {"seed": seed} | flat(own),
            upstream=tuple(name for name in stages if name in upstream),
        )
    return list(stages.values())


def choose(stages: Sequence[Stage], names: Sequence[str] | None) -> list[Stage]:
    """Return the named stages in order; all for None. Raises `UserError` for an unknown name."""
    chosen = choose_names([stage.name for stage in stages], names)
    return [stage for stage in stages if stage.name in chosen]


def _corpus(cfg: RunConfig, point: str) -> dict[str, Any]:
    corpus = asdict(cfg.corpus)
    for key in (*LANGUAGES, "texts", "seed", "ids_tokenizer", *OF_SOURCES, *OF_CLEANING):
        del corpus[key]
    corpus |= counting(cfg.corpus)
    if cfg.corpus.sources:  # which texts are target or source decides about evaluations, too
        corpus["sources"] = {key: cfg.corpus.texts_in(key) for key in LANGUAGES}
        corpus["order"] = list(cfg.corpus.sources)
    for name in cfg.corpus.names:
        key, entries = cfg.corpus.entries(name)
        field = key.removeprefix("corpus.") + CONTENT
        corpus[field] = contents(expand_entries(entries, key), cfg.corpus.ids_tokenizer)
    return {"corpus": corpus}


def _tokenizer(cfg: RunConfig, point: str) -> dict[str, Any]:
    return {
        "tokenizer": vocabulary_settings(cfg),
        "transplant": mode_settings(cfg),
        "languages": training_texts(cfg),
        **(portions(cfg.corpus) if mode_of(cfg).changes else {}),
        **_model_key(cfg),
    }


def _measure_tokenizer(cfg: RunConfig, point: str) -> dict[str, Any]:
    evaluation = {"tune_bytes": cfg.evaluation.tune_bytes}
    return {"tokenizer": measuring_settings(cfg), "evaluation": evaluation}


def _transplant(cfg: RunConfig, point: str) -> dict[str, Any]:
    precision = {"train": {"precision": cfg.train.precision}}
    chosen = mode_settings(cfg)
    if mode_of(cfg).changes:
        initial = {k: v for k, v in asdict(cfg.transplant).items() if k not in OF_MODES}
        chosen |= initial | initial_code(cfg.transplant)
        donor = Path(os.path.expanduser(cfg.transplant.donor.path or ""))
        if cfg.transplant.donor.path and donor.is_dir():
            chosen["donor"] |= {"path" + CONTENT: fingerprint_path(donor)}
    stretched = {"rope_scaling": cfg.model.rope_scaling} if cfg.model.rope_scaling else {}
    return {"transplant": chosen, **precision, **_model_key(cfg), **stretched}


def _pretrain(cfg: RunConfig, name: str) -> dict[str, Any]:
    return {
        "model": {"architecture": cfg.model.architecture},
        "tokenizer": {"model_type": cfg.tokenizer.model_type},
        **_train(cfg, name),
    }


def _train(cfg: RunConfig, name: str) -> dict[str, Any]:
    """Return the settings that affect a training stage; its own values replace shared ones."""
    own, stage = cfg.for_stage(name), asdict(cfg.stages[name])
    for key in SHAPE:
        del stage[key]
    if stage["learning_rate"] is not None:
        del stage["learning_rate_times_width"]
    stage["text"] = cfg.text_of(name).settings
    start = cfg.stages[name].from_stage
    if start != SCRATCH:
        stage["from"] = start if start == UNTRAINED else cfg.parent(name)
    stage |= method_code(cfg.stages[name].method)
    meter = cfg.evaluation.meter
    ending = {"evaluation": {"meter": asdict(meter)}} if meter.stop_above is not None else {}
    return {
        **ending,
        "train": _shared(own, name),
        "stages": {name: stage},
        "schedule": _schedule(own.schedule),
    }


def _shared(cfg: RunConfig, name: str) -> dict[str, Any]:
    """Return the settings of `train` that affect a stage."""
    shared, what = asdict(cfg.train), trains(cfg.stages[name])
    for key in NOT_IN_RESULTS:
        del shared[key]
    for key in ("sequence_warmup", "batch_warmup"):
        if shared[key]["start"] is None:
            del shared[key]
    decays = {
        "weight_decay": what.body,
        "embedding_weight_decay": (what.embedding or what.head) and not what.only_new_rows,
        "lora_weight_decay": what.adapter is not None,
    }
    default = shared["weight_decay"]
    for key, counts in decays.items():
        value = shared.pop(key)
        if counts:
            shared[key] = default if value is None else value
    return shared


def _schedule(schedule: ScheduleSettings) -> dict[str, Any]:
    """Return the settings that affect a schedule of this shape."""
    counting = ["name", "warmup_fraction"]
    if schedule.name in ("linear", "cosine", "wsd"):
        counting.append("final_fraction")
    if schedule.name == "wsd":
        counting += ["decay_fraction", "decay"]
    return {key: getattr(schedule, key) for key in counting}


def _compose(cfg: RunConfig, point: str) -> dict[str, Any]:
    """Return the settings of a composition, with the content of its inputs in place of paths."""
    own = asdict(cfg.compose) | composition_code(cfg.compose.kind)
    named = {name.removeprefix("compose."): path for name, path in cfg.compose.inputs.items()}
    for name, path in named.items():
        own[name] = _model_content(model_folder(f"compose.{name}", path), None)
    return {"compose": own}


def _evaluate(cfg: RunConfig, point: str) -> dict[str, Any]:
    special = {"special_strings": cfg.tokenizer.special_strings}
    tasks = counting_tasks(cfg.evaluation, point)
    own = {"evaluation": without_tasks(cfg.evaluation), "tokenizer": special, **tasks}
    if cfg.compose is None:
        return own
    own["train"] = {"precision": cfg.train.precision}
    return own if point == COMPOSED else own | {"compose": {"reference": _reference(cfg)}}


def _reference(cfg: RunConfig) -> dict[str, Any]:
    return _model_content(model_folder("compose", cfg.compose.reference), None)


def _correct(cfg: RunConfig, point: str) -> dict[str, Any]:
    correct, special = asdict(cfg.correct), {"special_strings": cfg.tokenizer.special_strings}
    if cfg.correct.rule != "weighted":
        del correct["beta"]
    evaluation = without_tasks(cfg.evaluation)
    return {"correct": correct, "evaluation": evaluation, "tokenizer": special}


def _report(cfg: RunConfig, point: str) -> dict[str, Any]:
    return {
        "hardware": asdict(cfg.hardware),
        "model": {"label": cfg.model.label},
        "recipe": {"name": cfg.recipe.name},
    }


COUNTING: dict[str, Callable[[RunConfig, str], dict[str, Any]]] = {
    "corpus": _corpus,
    "tokenizer": _tokenizer,
    "measure_tokenizer": _measure_tokenizer,
    "transplant": _transplant,
    "pretrain": _pretrain,
    "train": _train,
    "compose": _compose,
    "evaluate": _evaluate,
    "correct": _correct,
    "report": _report,
}
"""By stage module: the settings on which its result depends, for a point of the run."""


def _model_key(cfg: RunConfig) -> dict[str, Any]:
    """Identify the base model: by the content of a folder, or by hub id and revision."""
    if cfg.model.path is None:
        return {}
    check_model_folder(cfg.model.path)
    return {"model": _model_content(cfg.model.path, cfg.model.revision)}


def _model_content(path: str, revision: str | None) -> dict[str, Any]:
    folder = Path(os.path.expanduser(path))
    if folder.is_dir():
        return {"path" + CONTENT: fingerprint_path(folder)}
    return {"path": path, "revision": revision}
