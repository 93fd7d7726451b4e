"""The stages of a run with their fingerprints: what the result of each depends on.

A stage's fingerprint covers the settings that count for it and the fingerprints of the stages it
needs. So a changed setting changes the stages that depend on it and no others. How a run is split
among ranks, how often it logs and where it tracks do not change a result and do not count; nor do
settings that do nothing in a stage, as the weight decay of adapters where there are none.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc_llm.corpus import expand_entries
from hpc_llm.errors import UserError
from hpc_llm.methods import trains
from hpc_llm.pipeline.table import Entry, choose_names, outline, point_of, training_texts
from hpc_llm.rundir import fingerprint, fingerprint_path, flat
from hpc_llm.settings import RunConfig, ScheduleSettings
from hpc_llm.settings.corpus import LANGUAGES
from hpc_llm.settings.stage import SCRATCH
from hpc_llm.surgery.folders import check_model_folder
from hpc_llm.training.checkpoints.differences import CONTENT

__all__ = ["Stage", "choose", "pipeline"]

LAYOUT = 2  # raised when the files of a stage change, so that old results are computed again

NOT_IN_RESULTS = ("micro_batch_tokens", "log_steps", "max_hours", "threads", "steps", "replay")
SHAPE = ("sequence_length", "batch_tokens", "micro_batch_tokens", "schedule", "text", "from_stage")


@dataclass(frozen=True, kw_only=True)
class Stage(Entry):
    """A stage of a run with what its result depends on."""

    fingerprint: str
    settings: dict[str, Any]
    """What the fingerprint stands for, as `stages.lora.rank`, with that of the stages it needs."""

    @property
    def all_ranks(self) -> bool:
        """Every rank takes part; otherwise rank 0 works and the others wait."""
        return self.row.all_ranks

    @property
    def verb(self) -> str:
        """The verb that runs it alone."""
        return self.row.verb


def pipeline(cfg: RunConfig) -> list[Stage]:
    """Return the stages of `cfg`.

    Reads the corpus files and the model folder for their fingerprints and writes nothing. Raises
    `UserError` when a file is missing, or when the model's weights are neither given nor made by
    the recipe.
    """
    _check_texts(cfg)
    stages: dict[str, Stage] = {}
    for entry in outline(cfg):
        own = COUNTING[entry.row.module](cfg, point_of(entry.name))
        before = [stages[need].fingerprint for need in entry.needs]
        known: dict[str, Any] = {"seed": cfg.seed}
        for need in entry.needs:
            known |= stages[need].settings
        stages[entry.name] = Stage(
            **{key: getattr(entry, key) for key in Entry.__dataclass_fields__},
            fingerprint=fingerprint(LAYOUT, entry.name, cfg.seed, own, before),
            settings=known | flat(own),
        )
    return list(stages.values())


def choose(stages: Sequence[Stage], names: Sequence[str] | None) -> list[Stage]:
    """Return the stages that are named, in their order; all of them for None. Else `UserError`."""
    chosen = choose_names([stage.name for stage in stages], names)
    return [stage for stage in stages if stage.name in chosen]


def _check_texts(cfg: RunConfig) -> None:
    """Raise `UserError` for a run without a base model or without a text that a stage reads."""
    if cfg.model.path is None and (cfg.pretraining is None or not cfg.model.architecture):
        raise UserError(
            "model.path",
            "null",
            "no model to adapt",
            "give model.path=FOLDER_OR_HUB_ID, or no settings at all for the embedded example",
        )
    for name in filter(None, [cfg.pretraining, *cfg.adaptation]):
        _check_stage_text(cfg, name)


def _check_stage_text(cfg: RunConfig, name: str) -> None:
    """Raise `UserError` for a stage whose text has no files or no name in the corpus."""
    stage, missing = cfg.stages[name], set(cfg.text_of(name)) - set(cfg.corpus.names)
    key, value = f"stages.{name}.text", stage.text
    for text in sorted(missing - set(LANGUAGES)):
        known = ", ".join([*LANGUAGES, *cfg.corpus.texts])
        rule = f"no text is called {text}, there are {known}"
        fix = f"add it: corpus.texts={{{text}: [FILES]}}"
        raise UserError(key, value, rule, fix)
    if "source" in missing:
        if stage.text is None:
            key, value = "train.replay", cfg.train.replay
        if stage.from_stage == SCRATCH:
            key, value = f"stages.{name}.from", SCRATCH
        fix = "give it (corpus.source=en.jsonl.gz), or train without it"
        raise UserError(key, value, "there is no source text to train on", fix)


def _corpus(cfg: RunConfig, point: str) -> dict[str, Any]:
    corpus = asdict(cfg.corpus)
    for key in (*LANGUAGES, "texts"):
        del corpus[key]
    for name in cfg.corpus.names:
        key, entries = cfg.corpus.entries(name)
        field = key.removeprefix("corpus.") + CONTENT
        corpus[field] = _contents(expand_entries(entries, key))
    return {"corpus": corpus}


def _tokenizer(cfg: RunConfig, point: str) -> dict[str, Any]:
    return {
        "tokenizer": asdict(cfg.tokenizer),
        "languages": training_texts(cfg),
        **_model_key(cfg),
    }


def _transplant(cfg: RunConfig, point: str) -> dict[str, Any]:
    precision = {"train": {"precision": cfg.train.precision}}
    return {"transplant": asdict(cfg.transplant), **precision, **_model_key(cfg)}


def _pretrain(cfg: RunConfig, name: str) -> dict[str, Any]:
    return {
        "model": {"architecture": cfg.model.architecture},
        "tokenizer": {"model_type": cfg.tokenizer.model_type},
        **_train(cfg, name),
    }


def _train(cfg: RunConfig, name: str) -> dict[str, Any]:
    """The settings that count for a training stage, its own values in the place of shared ones."""
    own, stage = cfg.for_stage(name), asdict(cfg.stages[name])
    for key in SHAPE:
        del stage[key]
    if stage["learning_rate"] is not None:
        del stage["learning_rate_times_width"]
    stage["text"] = cfg.text_of(name)
    if cfg.stages[name].from_stage != SCRATCH:
        stage["from"] = cfg.parent(name)
    return {
        "train": _shared(own, name),
        "stages": {name: stage},
        "schedule": _schedule(own.schedule),
    }


def _shared(cfg: RunConfig, name: str) -> dict[str, Any]:
    """Settings of `train` that count in a stage."""
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
    """Settings of a schedule that count for its form."""
    counting = ["name", "warmup_fraction"]
    if schedule.name in ("linear", "cosine", "wsd"):
        counting.append("final_fraction")
    if schedule.name == "wsd":
        counting += ["decay_fraction", "decay"]
    return {key: getattr(schedule, key) for key in counting}


def _evaluate(cfg: RunConfig, point: str) -> dict[str, Any]:
    return {"evaluation": asdict(cfg.evaluation)}


def _correct(cfg: RunConfig, point: str) -> dict[str, Any]:
    return {"correct": asdict(cfg.correct), "evaluation": asdict(cfg.evaluation)}


def _report(cfg: RunConfig, point: str) -> dict[str, Any]:
    return {
        "hardware": asdict(cfg.hardware),
        "model": {"label": cfg.model.label},
        "recipe": {"name": cfg.recipe.name},
    }


COUNTING: dict[str, Callable[[RunConfig, str], dict[str, Any]]] = {
    "corpus": _corpus,
    "tokenizer": _tokenizer,
    "transplant": _transplant,
    "pretrain": _pretrain,
    "train": _train,
    "evaluate": _evaluate,
    "correct": _correct,
    "report": _report,
}
"""By the module of a stage: the settings that its result depends on, for a point of the run."""


def _model_key(cfg: RunConfig) -> dict[str, Any]:
    """What stands for the base model: the content of a folder, or a hub id and its revision."""
    if cfg.model.path is None:
        return {}
    check_model_folder(cfg.model.path)
    folder = Path(cfg.model.path).expanduser()
    if folder.is_dir():
        return {"model": {"path" + CONTENT: fingerprint_path(folder)}}
    return {"model": {"path": cfg.model.path, "revision": cfg.model.revision}}


def _contents(entries: list[str]) -> list[str]:
    """What stands for corpus entries: the content of files; other entries by their name."""
    paths = [Path(entry) for entry in entries]
    return [
        fingerprint_path(path) if path.is_file() else entry
        for path, entry in zip(paths, entries, strict=True)
    ]
