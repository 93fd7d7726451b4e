"""The stages of a run in their order, and the fingerprint of each.

A stage's fingerprint covers its own settings and the fingerprints of the stages it needs. So a
changed setting changes the stages that depend on it and no others. How a run is divided among
ranks, how often it logs and where it tracks are left out: they do not change the result.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc_llm.corpus import expand_entries
from hpc_llm.errors import UserError
from hpc_llm.rundir import fingerprint, fingerprint_path, flat
from hpc_llm.settings import RunConfig
from hpc_llm.settings.train import STAGES
from hpc_llm.surgery.folders import check_model_folder
from hpc_llm.training.checkpoints.differences import CONTENT

__all__ = ["VERBS", "Stage", "choose", "pipeline", "stage_names"]

VERBS = ("corpus", "tokenizer", "transplant", "train", "correct", "evaluate", "report")
LAYOUT = 1  # raised when the files of a stage change, so that old results are made anew

NOT_IN_RESULTS = ("micro_batch_tokens", "log_steps", "max_hours", "threads")


@dataclass(frozen=True)
class Stage:
    """One stage: what it is called, which module runs it, and what its result depends on."""

    name: str
    """Its name in the record, and its folder: train/lora."""
    module: str
    """The module of `hpc_llm.stages` whose `run(context, name)` does the work."""
    verb: str
    """The verb that runs it alone."""
    needs: tuple[str, ...]
    """Stages whose results it reads."""
    fingerprint: str
    settings: dict[str, Any]
    """What the fingerprint stands for, as `train.lora.rank`, with that of the stages it needs."""
    outputs: tuple[str, ...]
    """Files, relative to the run folder, without which it is not done."""
    owns: tuple[str, ...]
    """What it writes: moved aside, not overwritten, when it runs with other settings."""

    @property
    def all_ranks(self) -> bool:
        """Every rank takes part; otherwise rank 0 works and the others wait."""
        return self.module in ("train", "pretrain")


class _Builder:
    """Collects stages and chains their fingerprints."""

    def __init__(self, seed: int) -> None:
        self.stages: dict[str, Stage] = {}
        self.seed = seed

    def add(
        self,
        name: str,
        needs: tuple[str, ...],
        settings: dict[str, Any],
        outputs: tuple[str, ...],
        *,
        verb: str | None = None,
        owns: tuple[str, ...] = (),
    ) -> None:
        """Add a stage; `settings` is a part of the configuration's tree."""
        module = name.split("/")[0]
        before = [self.stages[need].fingerprint for need in needs]
        known = {"seed": self.seed}
        for need in needs:
            known |= self.stages[need].settings
        self.stages[name] = Stage(
            name=name,
            module=module,
            verb=verb or module,
            needs=needs,
            fingerprint=fingerprint(LAYOUT, name, self.seed, settings, before),
            settings=known | flat(settings),
            outputs=outputs,
            owns=owns or (name,),
        )


def pipeline(cfg: RunConfig) -> list[Stage]:
    """Return the stages of `cfg`.

    Reads the corpus files and the model folder for their fingerprints and writes nothing. Raises
    `UserError` when a file is missing, or when the model's weights are neither given nor made by
    the recipe.
    """
    build = _Builder(cfg.seed)
    corpus = asdict(cfg.corpus)
    for key in ("target", "source"):
        entries = expand_entries(corpus.pop(key), f"corpus.{key}")
        corpus[key + CONTENT] = _contents(entries)
    build.add("corpus", (), {"corpus": corpus}, ("corpus/target/train.jsonl",))
    base = _add_base(build, cfg)
    languages = _training_languages(cfg)
    shards = [f"tokenizer/shards/{language}.json" for language in languages]
    outputs = ("tokenizer/tokenizer.json", *shards)
    settings = {"tokenizer": asdict(cfg.tokenizer), "languages": languages, **_model_key(cfg)}
    build.add("tokenizer", ("corpus", *base), settings, outputs)
    _add_evaluation(build, cfg, "base", ("corpus", "tokenizer", *base))
    precision = {"train": {"precision": cfg.train.precision}}
    settings = {"transplant": asdict(cfg.transplant), **precision, **_model_key(cfg)}
    outputs = ("transplant/config.json", "transplant/new_rows.npy")
    build.add("transplant", ("tokenizer", *base), settings, outputs)
    _add_evaluation(build, cfg, "transplant", ("transplant",))
    before = "transplant"
    for name in cfg.recipe.adaptation:
        build.add(f"train/{name}", (before,), _train_key(cfg, name), (f"train/{name}/done.json",))
        before = f"train/{name}"
        _add_evaluation(build, cfg, name, (before,))
    settings = {"correct": asdict(cfg.correct), "evaluation": asdict(cfg.evaluation)}
    outputs = ("correct/phi.json", "model/config.json")
    build.add("correct", (before,), settings, outputs, owns=("correct", "model"))
    _add_evaluation(build, cfg, "corrected", ("correct",))
    figures = {
        "hardware": asdict(cfg.hardware),
        "model": {"label": cfg.model.label},
        "recipe": {"name": cfg.recipe.name},
    }
    outputs = ("summary.json", "report/index.html")
    build.add("report", tuple(build.stages), figures, outputs, owns=("report", "summary.json"))
    return list(build.stages.values())


def stage_names(cfg: RunConfig) -> list[str]:
    """Return the names of the stages of `cfg` in order, without reading its files."""
    names = ["corpus"]
    names += ["pretrain"] if cfg.model.path is None and "pretrain" in cfg.recipe.stages else []
    names += ["tokenizer", "evaluate/base", "transplant", "evaluate/transplant"]
    for name in cfg.recipe.adaptation:
        names += [f"train/{name}", f"evaluate/{name}"]
    return [*names, "correct", "evaluate/corrected", "report"]


def choose(stages: Sequence[Stage], names: Sequence[str] | None) -> list[Stage]:
    """Return the stages that are named, in their order; all of them for None. Else `UserError`."""
    known = [stage.name for stage in stages]
    for name in names or ():
        if name not in known:
            raise UserError(f"--stages {name}: no such stage; known are {', '.join(known)}")
    return [stage for stage in stages if names is None or stage.name in names]


def _add_base(build: _Builder, cfg: RunConfig) -> tuple[str, ...]:
    """Add the stage that makes the base model, if the recipe has one; return what needs it."""
    if cfg.model.path is not None:
        return ()
    if "pretrain" not in cfg.recipe.stages or not cfg.model.architecture:
        raise UserError(
            "model.path=null: no model to adapt; give model.path=FOLDER_OR_HUB_ID, "
            "or no settings at all for the embedded example"
        )
    settings = {
        "model": {"architecture": cfg.model.architecture},
        "tokenizer": {"model_type": cfg.tokenizer.model_type},
        **_train_key(cfg, "pretrain"),
    }
    build.add("pretrain", ("corpus",), settings, ("pretrain/done.json",), verb="train")
    return ("pretrain",)


def _add_evaluation(build: _Builder, cfg: RunConfig, point: str, needs: tuple[str, ...]) -> None:
    name = f"evaluate/{point}"
    output = (f"{name}.json", f"{name}.npz")
    needs = needs if point == "base" else (*needs, "evaluate/base")  # forgetting is against it
    build.add(name, needs, {"evaluation": asdict(cfg.evaluation)}, output, owns=output)


def _training_languages(cfg: RunConfig) -> list[str]:
    """Languages whose text the adapted model trains on."""
    if not cfg.train.replay:
        return ["target"]
    if not cfg.corpus.source:
        raise UserError(
            f"train.replay={cfg.train.replay}: there is no source text to replay; give it "
            "(corpus.source=en.jsonl.gz), or train.replay=0"
        )
    return ["target", "source"]


def _train_key(cfg: RunConfig, name: str) -> dict[str, Any]:
    train = asdict(cfg.train)
    shared = {k: v for k, v in train.items() if k not in STAGES}
    for key in NOT_IN_RESULTS:
        del shared[key]
    if name == "pretrain":
        del shared["replay"]
    return {"train": {**shared, name: train[name]}, "schedule": asdict(cfg.schedule)}


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
